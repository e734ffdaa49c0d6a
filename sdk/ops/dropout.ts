import { ShapeError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { OpSpec } from '../graph/spec.ts'
import { mix } from '../random.ts'
import { ints, normal } from './cases.ts'
import { signature } from './signature.ts'

/** After adding the golden ratio, so that 0 does not stay 0. */
const mixed = (x: number): number => mix((x + 0x9e3779b9) | 0)

/** u32 of (seed, stream): mixed once a tensor. */
export const dropoutKey = (seed0: number, seed1: number, stream: number): number =>
  mixed(stream ^ mixed(seed1 ^ mixed(seed0))) >>> 0

/** u32 of one element: kept where it is >= dropoutThreshold(p). All arithmetic modulo 2^32. */
export const dropoutHash = (key: number, index: number): number => mixed(index ^ key) >>> 0

export const dropoutThreshold = (p: number): number => Math.floor(p * 2 ** 32)

export type DropoutAttrs = { p: number; stream: number }

/** Zeroes elements with probability p and multiplies the others by 1/(1-p). Counter-based: its own gradient and recomputation. */
export const dropoutOp: OpSpec<DropoutAttrs> = {
  name: 'dropout',
  inplace: [[0, 0]],
  infer: signature('dropout', 'x[...], seed[2]:i32 -> [...]', (_, __, { p, stream }: DropoutAttrs) => {
    if (!(p >= 0 && p < 1)) throw new ShapeError(`dropout: p is ${p}, expected 0 <= p < 1`)
    if (!Number.isSafeInteger(stream)) throw new ShapeError(`dropout: stream is ${stream}, expected an integer`)
  }),
  vjp(g, { inputs: [, seed], attrs }, [dy]) {
    return [dropout(g, dy!, seed, attrs), null]
  },
  reference([x, seed], { p, stream }) {
    const key = dropoutKey(seed.data[0], seed.data[1], stream)
    const least = dropoutThreshold(p)
    return [{ shape: x.shape, data: x.data.map((v, i) => (dropoutHash(key, i) >= least ? v / (1 - p) : 0)) }]
  },
  cases: [
    { name: 'p 0.1', inputs: [normal([7, 33]), ints([1, -5])], attrs: { p: 0.1, stream: 3 } },
    { name: 'p 0.5', inputs: [normal([130]), ints([-2147483648, 2147483647])], attrs: { p: 0.5, stream: 16777215 } },
    { name: 'p 0', inputs: [normal([5]), ints([0, 0])], attrs: { p: 0, stream: 0 } },
  ],
}

/** x of any shape, seed i32[2]; `stream` tells apart the dropouts of one program. */
export const dropout = (g: Graph, x: Tensor, seed: Tensor, { p, stream }: DropoutAttrs): Tensor =>
  g.apply(dropoutOp, [x, seed], { p, stream })[0]
