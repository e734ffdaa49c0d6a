// Lengths of the blocks that quantized types are stored in. Only numbers stand here: AssemblyScript reads this file as it is
// (kernels-as/pack.ts), TypeScript through the table of types in sdk/dtype.ts.

/** Elements of a block, along the last axis. */
export const BLOCK = 32
/** An f16 scale, 32 int8: GGUF's Q8_0. */
export const Q8_BYTES = 34
/** An f16 scale, 16 bytes with the first half of the elements in the low nibbles: GGUF's Q4_0. */
export const Q4_BYTES = 18
/** An f16 scale, an f16 minimum, 16 bytes as above: GGUF's Q4_1. */
export const Q4A_BYTES = 20
