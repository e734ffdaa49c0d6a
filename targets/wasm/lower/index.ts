import * as decode from './decode.ts'
import * as matrix from './matrix.ts'
import * as nn from './nn.ts'
import * as small from './small.ts'
import type { Lowering, Scratch } from './types.ts'

/** Every op that this target runs. */
export const lowering: Lowering = { ...matrix.lowering, ...nn.lowering, ...small.lowering, ...decode.lowering }

export const scratch: Scratch = { ...matrix.scratch, ...nn.scratch, ...small.scratch, ...decode.scratch }
