import fc from 'fast-check'
import { expect } from 'vitest'
import { FormatError } from '../../sdk/errors.ts'
import type { StoredTensor } from '../../sdk/formats/stored.ts'

/** Any range of the tensor is that part of its bytes, and one beyond its end is refused. */
export async function expectAnyRange(tensor: StoredTensor, whole: Uint8Array): Promise<void> {
  await fc.assert(
    fc.asyncProperty(fc.nat(whole.length), fc.nat(whole.length), async (a, b) => {
      const [from, to] = [Math.min(a, b), Math.max(a, b)]
      expect(await tensor.read(from, to - from)).toEqual(whole.slice(from, to))
    }),
    { seed: 1, numRuns: 100 },
  )
  await expect(tensor.read(whole.length - 1, 2)).rejects.toThrow(FormatError)
}
