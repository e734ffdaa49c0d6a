import { decode } from './decode.ts'
import { matrix } from './matrix.ts'
import { nn } from './nn.ts'
import { small } from './small.ts'
import type { Lowering } from './types.ts'

/** Every op that this target runs. */
export const lowering: Lowering = { ...matrix, ...nn, ...small, ...decode }
