import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { copyOf } from './array.ts'
import { ints, normal } from './cases.ts'
import { f32, signature } from './signature.ts'

const writeArguments = signature('kvWrite', 'cache[S,P,E]', 'x[R,E]', 'slots[R]:i32', 'positions[R]:i32')

/** cache[slots[r]][positions[r]] = x[r]; position -1 writes nothing. */
export const kvWriteOp: OpSpec = {
  name: 'kvWrite',
  state: [[0, 0]],
  infer(inputs) {
    const { S, P, E } = writeArguments(inputs)
    return [f32(S, P, E)]
  },
  reference([cache, x, slots, positions]) {
    const [, capacity, e] = cache.shape
    const out = copyOf(cache)
    positions.data.forEach((position, r) => {
      if (position < 0) return
      out.data.set(x.data.subarray(r * e, (r + 1) * e), (slots.data[r] * capacity + position) * e)
    })
    return [out]
  },
  cases: [
    { name: 'chunk', inputs: [normal([2, 5, 7]), normal([3, 7]), ints([1, 1, 1]), ints([1, 2, 3])], attrs: {} },
    {
      name: 'decode, padding rows',
      inputs: [normal([4, 3, 33]), normal([4, 33]), ints([3, 1, 0, 2]), ints([2, -1, 0, -1])],
      attrs: {},
    },
  ],
}

/** cache [S, P, E], x [R, E], slots and positions i32[R] -> the next version of `cache`. */
export const kvWrite = (g: Graph, cache: Tensor, x: Tensor, slots: Tensor, positions: Tensor): Tensor =>
  g.apply(kvWriteOp, [cache, x, slots, positions], {})[0]

const copyArguments = signature('kvCopy', 'cache[S,P,E]', 'from[M]:i32', 'to[M]:i32', 'length[M]:i32')

/** Copies positions 0..length-1 of slot `from` to slot `to`, one after the other; from -1 copies nothing. */
export const kvCopyOp: OpSpec = {
  name: 'kvCopy',
  state: [[0, 0]],
  infer(inputs) {
    const { S, P, E } = copyArguments(inputs)
    return [f32(S, P, E)]
  },
  reference([cache, from, to, length]) {
    const [, capacity, e] = cache.shape
    const out = copyOf(cache)
    from.data.forEach((slot, m) => {
      if (slot < 0) return
      const first = slot * capacity * e
      out.data.copyWithin(to.data[m] * capacity * e, first, first + length.data[m] * e)
    })
    return [out]
  },
  cases: [
    {
      name: 'one prompt to many, padding',
      inputs: [normal([5, 6, 7]), ints([1, 1, -1, 1]), ints([0, 3, 2, 4]), ints([4, 6, 5, 1])],
      attrs: {},
    },
  ],
}

/** cache [S, P, E], from, to and length i32[M] -> the next version of `cache`. */
export const kvCopy = (g: Graph, cache: Tensor, from: Tensor, to: Tensor, length: Tensor): Tensor =>
  g.apply(kvCopyOp, [cache, from, to, length], {})[0]
