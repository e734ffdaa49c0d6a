import type { Lowering, Scratch } from './types.ts'

export const lowering: Lowering = {}

export const scratch: Scratch = {}
