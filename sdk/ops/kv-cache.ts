import { describe, type TensorType } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { CaseInput, OpSpec } from '../graph/spec.ts'
import { copyOf } from './array.ts'
import { ints, normal } from './cases.ts'
import { signature } from './signature.ts'

// A key or value cache [S, G, P, D] of f32 or f16: slots, key/value heads, capacity, head size. A slot is contiguous. Rows are either a decode
// step, row r at positions[r] of slot r, or with `slot` a chunk of one slot. Position -1 is padding.

/** Throws unless every row has a slot, and rows of f16 are whole words. */
export function checkCache(op: string, cache: TensorType, positions: TensorType, slot: TensorType | undefined): void {
  if (cache.dtype === 'f16' && cache.shape[3] % 2 !== 0)
    throw new ShapeError(`${op}: the cache is ${describe(cache)}, expected an even head size in f16`)
  if (!slot && positions.shape[0] > cache.shape[0])
    throw new ShapeError(
      `${op}: positions is ${describe(positions)} and the cache ${describe(cache)}, expected at most a row a slot`,
    )
}

const half = (shape: readonly number[]): CaseInput => ({ ...normal(shape), type: { dtype: 'f16', shape } })

/** cache[r][g][positions[r]] = x[r][g], or of slot `slot` in place of r; position -1 writes nothing. */
export const kvWriteOp: OpSpec = {
  name: 'kvWrite',
  state: [[0, 0]],
  infer: signature(
    'kvWrite',
    'cache[S,G,P,D]:cache, x[R,E], positions[R]:i32, slot[1]?:i32 -> cache[S,G,P,D]',
    ({ G, D, E }, [cache, x, positions, slot]) => {
      if (E !== G * D)
        throw new ShapeError(`kvWrite: x is ${describe(x)}, expected [R, G*D] of the cache ${describe(cache)}`)
      checkCache('kvWrite', cache, positions, slot)
    },
  ),
  reference([cache, x, positions, slot]) {
    const [, heads, capacity, d] = cache.shape
    const out = copyOf(cache)
    positions.data.forEach((position, r) => {
      if (position < 0) return
      for (let g = 0; g < heads; g++) {
        const row = x.data.subarray((r * heads + g) * d, (r * heads + g + 1) * d)
        out.data.set(row, (((slot?.data[0] ?? r) * heads + g) * capacity + position) * d)
      }
    })
    return [out]
  },
  cases: [
    { name: 'chunk', inputs: [normal([2, 1, 5, 7]), normal([3, 7]), ints([1, 2, 3]), ints([1])], attrs: {} },
    {
      name: 'chunk of several heads, padding rows',
      inputs: [normal([3, 5, 9, 6]), normal([4, 30]), ints([7, 8, -1, -1]), ints([2])],
      attrs: {},
    },
    { name: 'decode, padding rows', inputs: [normal([4, 3, 3, 11]), normal([4, 33]), ints([2, -1, 0, -1])], attrs: {} },
    { name: 'decode, fewer rows than slots', inputs: [normal([5, 2, 3, 4]), normal([2, 8]), ints([1, 2])], attrs: {} },
    { name: 'f16, chunk', inputs: [half([2, 3, 5, 6]), normal([3, 18]), ints([1, 4, -1]), ints([1])], attrs: {} },
    { name: 'f16, decode', inputs: [half([4, 1, 3, 10]), normal([3, 10], 300), ints([2, -1, 0])], attrs: {} },
    { name: 'f16, tiny numbers', inputs: [half([1, 1, 1, 8]), normal([1, 8], 1e-6), ints([0])], attrs: {} },
  ],
}

/** cache [S, G, P, D], x [R, G*D], positions i32[R], slot i32[1] or left out -> the next version of `cache`. */
export const kvWrite = (g: Graph, cache: Tensor, x: Tensor, positions: Tensor, slot?: Tensor): Tensor =>
  g.apply(kvWriteOp, [cache, x, positions, ...(slot ? [slot] : [])], {})[0]

/** Copies positions 0..length-1 of slot `from` to slot `to`, one copy after the other; from -1 copies nothing. */
export const kvCopyOp: OpSpec = {
  name: 'kvCopy',
  state: [[0, 0]],
  infer: signature('kvCopy', 'cache[S,G,P,D]:cache, from[M]:i32, to[M]:i32, length[M]:i32 -> cache[S,G,P,D]'),
  reference([cache, from, to, length]) {
    const [, heads, capacity, d] = cache.shape
    const out = copyOf(cache)
    from.data.forEach((slot, m) => {
      if (slot < 0) return
      for (let g = 0; g < heads; g++) {
        const first = (slot * heads + g) * capacity * d
        out.data.copyWithin((to.data[m] * heads + g) * capacity * d, first, first + length.data[m] * d)
      }
    })
    return [out]
  },
  cases: [
    {
      name: 'one prompt to many, padding',
      inputs: [normal([5, 1, 6, 7]), ints([1, 1, -1, 1]), ints([0, 3, 2, 4]), ints([4, 6, 5, 1])],
      attrs: {},
    },
    {
      name: 'f16',
      inputs: [half([3, 2, 5, 6]), ints([2, -1, 0]), ints([0, 1, 1]), ints([4, 5, 3])],
      attrs: {},
    },
    {
      name: 'several heads, a slot copied on',
      inputs: [normal([3, 3, 9, 5]), ints([2, 0]), ints([0, 1]), ints([7, 4])],
      attrs: {},
    },
  ],
}

/** cache [S, G, P, D], from, to and length i32[M] -> the next version of `cache`. */
export const kvCopy = (g: Graph, cache: Tensor, from: Tensor, to: Tensor, length: Tensor): Tensor =>
  g.apply(kvCopyOp, [cache, from, to, length], {})[0]
