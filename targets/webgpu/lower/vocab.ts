import * as kernels from '../../../kernels-wgsl/vocab.ts'
import { product, straight, transposed } from './products.ts'
import {
  type Call,
  columnsOf,
  each,
  type Lowered,
  type Lowering,
  type LowerNode,
  moved,
  type Place,
  type Places,
  partsOf,
  rowsOf,
} from './types.ts'

// The vocabulary goes in slices: the logits of one are in scratch.

/** Ids of the vocabulary taken at once: 4 MiB of logits. */
const sliceWidth = (n: number): number => Math.max(64, Math.floor(2 ** 20 / n / 64) * 64)

const logitsBytes = (n: number, vocabulary: number): number => 4 * n * Math.min(sliceWidth(n), vocabulary)

interface Slice {
  readonly place: Place
  readonly first: number
  readonly width: number
}

function slices(table: Place, n: number): Slice[] {
  const most = sliceWidth(n)
  return partsOf(table).flatMap(({ place, first }) => {
    const own = rowsOf(place)
    return Array.from({ length: Math.ceil(own / most) }, (_, s) => {
      const width = Math.min(most, own - s * most)
      return { place: moved(place, s * most * columnsOf(place)), first: first + s * most, width }
    })
  })
}

/** Each slice's logits, then their gradient in place, then what `use` makes of it. */
const vocabBack = (
  node: LowerNode<unknown>,
  use: (places: Places, slice: Slice, z: Place, index: number) => Call,
): Lowered => {
  const [n, k] = node.inputs[6].shape
  return {
    scratchBytes: logitsBytes(n, rowsOf(node.inputs[5])),
    calls(places) {
      const [dLogProbs, dLse, dEntropy, dTail, h, table, ids, temperature, lse, entropy, tail] = places.inputs
      return slices(table, n).flatMap((slice, index) => {
        const z = { ...places.scratch, shape: [n, slice.width] }
        return [
          product(straight(h), straight(slice.place), z, [n, slice.width, columnsOf(h)]),
          each(
            kernels.vocabGradient,
            n * slice.width,
            [z, ids, dLogProbs, dLse, dEntropy, dTail, lse, entropy, tail, temperature],
            [k, slice.width, slice.first],
          ),
          use(places, slice, z, index),
        ]
      })
    },
  }
}

export const vocab = {
  vocabPick({ inputs: [, vocabulary, { shape }] }) {
    const [n, k] = shape
    const logits = logitsBytes(n, rowsOf(vocabulary))
    return {
      scratchBytes: logits + 4 * kernels.statsWidth * n,
      calls({ inputs: [h, table, ids, temperature], outputs: [logProbs, lse, entropy, tail], scratch }) {
        const stats = { ...moved(scratch, logits / 4), shape: [n, kernels.statsWidth] }
        return [
          ...slices(table, n).flatMap(({ place, first, width }): Call[] => {
            const z = { ...scratch, shape: [n, width] }
            const args = [z, ids, temperature, logProbs, stats]
            return [
              product(straight(h), straight(place), z, [n, width, columnsOf(h)]),
              { kernel: kernels.vocabStats, args, params: [k, width, first], groups: n },
            ]
          }),
          each(kernels.vocabCombine, n, [stats, ids, logProbs, lse, entropy, tail], [k]),
        ]
      },
    }
  },
  vocabPickBack: (node) =>
    vocabBack(node, ({ outputs: [dh] }, { place, width }, z, index) =>
      product(straight(z), transposed(place), dh, [rowsOf(z), columnsOf(dh), width], { adds: index > 0 }),
    ),
  vocabPickBackTable: (node) =>
    vocabBack(node, ({ inputs }, { first, width }, z) => {
      const [h, grad] = [inputs[4], inputs[11]]
      const c = columnsOf(h)
      return product(transposed(z), transposed(h), moved(grad, first * c), [width, c, rowsOf(z)], { adds: true })
    }),
} satisfies Partial<Lowering>
