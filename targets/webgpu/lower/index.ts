import { attention } from './attention.ts'
import { elementwise } from './elementwise.ts'
import { products } from './products.ts'
import { rows } from './rows.ts'
import { sampling } from './sample.ts'
import { sums } from './sums.ts'
import type { Lowering } from './types.ts'
import { vocab } from './vocab.ts'

/** Op name -> its kernels. */
export const lowering: Lowering = {
  ...elementwise,
  ...sums,
  ...rows,
  ...products,
  ...attention,
  ...vocab,
  ...sampling,
}
