import { attention } from './attention.ts'
import { decode } from './decode.ts'
import { matrix } from './matrix.ts'
import { nn } from './nn.ts'
import { small } from './small.ts'
import type { Lowering } from './types.ts'
import { vocab } from './vocab.ts'

/** Every op that becomes nodes; kvCopy moves memory. */
export const lowering: Omit<Lowering, 'kvCopy'> = { ...matrix, ...nn, ...attention, ...small, ...vocab, ...decode }
