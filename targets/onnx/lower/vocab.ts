// Through the vocabulary in slices, all rows at once: [R, V] is never held, but where the table itself is trained.
import { LOG_ZERO } from '../../../sdk/log-zero.ts'
import type { OnnxGraph } from '../model.ts'
import { isGiven, isZeros, log1p } from './small.ts'
import type { Lowering, LowerNode, Operand } from './types.ts'
import { product, productBack, type Rows } from './weights.ts'

/** Logits of one slice, at most; of a table that is trained one slice has all. */
const mostLogits = 20e6 / 4

function slicesOf(table: Operand, rows: number): Rows[] {
  const vocabulary = table.shape[0]
  const size = Math.min(vocabulary, Math.max(1024, Math.ceil(Math.floor(mostLogits / rows) / 64) * 64))
  return Array.from({ length: Math.ceil(vocabulary / size) }, (_, s) => ({
    from: s * size,
    to: Math.min(vocabulary, (s + 1) * size),
  }))
}

/** Ids within a slice, and whether they are of it: others become 0. */
function within(g: OnnxGraph, ids: Operand, { from, to }: Rows) {
  return g.once(`ids ${ids.value} ${from} ${to}`, () => {
    const local = g.node('Sub', [ids.value, g.int32(from)])
    const isIn = g.node('And', [
      g.node('GreaterOrEqual', [local, g.int32(0)]),
      g.node('Less', [local, g.int32(to - from)]),
    ])
    return { isIn, local: g.node('Where', [isIn, local, g.int32(0)]) }
  })
}

/** z = h·tableᵀ/T of a slice. */
function logits(g: OnnxGraph, h: Operand, table: Operand, temperature: Operand, rows: Rows): string {
  return g.node('Div', [product(g, h, table, { rows }), temperature.value])
}

/** A slice's values at the row's own ids replaced; what is no id of the slice goes to one more column. */
function without(g: OnnxGraph, x: string, ids: Operand, rows: Rows, value: number): string {
  const { isIn, local } = within(g, ids, rows)
  const to = g.node('Where', [isIn, local, g.int32(rows.to - rows.from)])
  const updates = g.node('Expand', [g.float(value), g.ints(...ids.shape)])
  const padded = g.node('Pad', [x, g.ints(0, 0, 0, 1), g.float(value)])
  return g.node('ScatterElements', [padded, to, updates], { axis: 1 })
}

/** Sums of exponents over slices, each relative to its greatest: the greatest of all, and the sum relative to it, [R, 1] each. */
function massOf(g: OnnxGraph, tops: readonly string[], sums: readonly string[]): { top: string; sum: string } {
  if (tops.length === 1) return { top: tops[0], sum: sums[0] }
  const [all, sum] = [tops, sums].map((parts) => g.node('Concat', parts, { axis: 1 }))
  const top = g.max(all, 1, true)
  return { top, sum: g.sum(g.node('Mul', [sum, g.node('Exp', [g.node('Sub', [all, top])])]), 1, true) }
}

const total = (g: OnnxGraph, parts: readonly string[]): string => parts.reduce((a, b) => g.node('Add', [a, b]))
const flat = (g: OnnxGraph, x: string): string => g.reshape(x, [-1])

export const vocab: Pick<Lowering, 'vocabPick' | 'vocabPickBack' | 'vocabPickBackTable'> = {
  // Activations as they are: scores are compared with others.
  vocabPick: (g, { inputs: [h, table, ids, temperature] }) => {
    const slices = slicesOf(table, h.shape[0]).map((rows) => {
      const z = logits(g, h, table, temperature, rows)
      const top = g.max(z, 1, true)
      const mass = g.node('Exp', [g.node('Sub', [z, top])])
      const { isIn, local } = within(g, ids, rows)
      const outside = without(g, z, ids, rows, LOG_ZERO)
      const outsideTop = g.max(outside, 1, true)
      const parts = {
        sum: g.sum(mass, 1, true),
        weighted: g.sum(g.node('Mul', [mass, g.node('Sub', [z, top])]), 1, true),
        picked: g.node('Where', [isIn, g.node('GatherElements', [z, local], { axis: 1 }), g.float(0)]),
        outsideTop,
        outsideSum: g.sum(g.node('Exp', [g.node('Sub', [outside, outsideTop])]), 1, true),
      }
      return { ...parts, top: g.reshape(top, [-1, 1], Object.values(parts)) }
    })
    const of = <K extends keyof (typeof slices)[0]>(key: K) => slices.map((slice) => slice[key])
    const { top, sum } = massOf(g, of('top'), of('sum'))
    const lse = g.node('Add', [top, g.node('Log', [sum])])
    const isId = isGiven(g, ids)
    const logProbs = g.node('Where', [isId, g.node('Sub', [total(g, of('picked')), lse]), g.float(0)])
    // log(sum) - the mean of z - top: both are small where the row is peaked.
    const expected = total(
      g,
      slices.map((slice) => {
        const away = g.node('Sub', [slice.top, top])
        const own = g.node('Add', [slice.weighted, g.node('Mul', [slice.sum, away])])
        return g.node('Mul', [own, g.node('Exp', [away])])
      }),
    )
    const entropy = g.node('Sub', [g.node('Log', [sum]), g.node('Div', [expected, sum])])
    // The mass outside: as 1 - the ids' where they have less than half, else summed up.
    const picked = g.sum(g.node('Where', [isId, g.node('Exp', [logProbs]), g.float(0)]), 1, true)
    const outside = massOf(g, of('outsideTop'), of('outsideSum'))
    const rest = g.node('Add', [g.node('Sub', [outside.top, top]), g.node('Log', [g.node('Div', [outside.sum, sum])])])
    // Where nothing is outside of the ids.
    const isNone = g.node('Less', [rest, g.float(LOG_ZERO / 10)])
    const exact = g.node('Where', [
      g.node('Less', [picked, g.float(0.5)]),
      log1p(g, g.node('Neg', [g.node('Min', [picked, g.float(0.5)])])),
      rest,
    ])
    const tail = g.node('Where', [isNone, g.float(LOG_ZERO), exact])
    return [logProbs, flat(g, lse), flat(g, entropy), flat(g, tail)]
  },
  vocabPickBack: (g, node) => {
    const [h, table, , temperature] = node.inputs.slice(4)
    const parts = slicesOf(table, h.shape[0]).map((rows) => productBack(g, gradients(g, node, rows), table, rows))
    return [g.node('Div', [total(g, parts), temperature.value])]
  },
  vocabPickBackTable: (g, node) => {
    const [h, table, , temperature] = node.inputs.slice(4)
    const dz = g.node('Div', [gradients(g, node, { from: 0, to: table.shape[0] }), temperature.value])
    return [g.asLeaf(g.node('Gemm', [dz, h.value, node.inputs[11].value], { transA: 1 }))]
  },
}

/** dz of a slice, by sdk/ops/vocab-pick-back.ts' formula; terms whose gradient is zeros for sure are left out. */
function gradients(g: OnnxGraph, { inputs }: LowerNode<unknown>, rows: Rows): string {
  const [dLogProbs, dLse, dEntropy, dTail, h, table, ids, temperature, lse, entropy, tail] = inputs
  const z = logits(g, h, table, temperature, rows)
  const logP = g.node('Sub', [z, g.column(lse.value)])
  const isId = isGiven(g, ids)
  const own = g.node('Where', [isId, dLogProbs.value, g.float(0)])
  const hasTail = !isZeros(g, dTail)
  // No gradient through a tail of nothing.
  const tailGradient = () =>
    g.node('Where', [
      g.node('Greater', [g.column(tail.value), g.float(LOG_ZERO / 10)]),
      g.column(dTail.value),
      g.float(0),
    ])
  let factor = g.node('Neg', [g.sum(own, 1, true)])
  if (!isZeros(g, dLse)) factor = g.node('Add', [factor, g.column(dLse.value)])
  if (hasTail) factor = g.node('Sub', [factor, tailGradient()])
  if (!isZeros(g, dEntropy)) {
    const surprise = g.node('Add', [logP, g.column(entropy.value)])
    factor = g.node('Sub', [factor, g.node('Mul', [surprise, g.column(dEntropy.value)])])
  }
  let dz = g.node('Mul', [g.node('Exp', [logP]), factor])
  if (hasTail) {
    const outside = g.slice(without(g, z, ids, rows, LOG_ZERO), 1, 0, rows.to - rows.from)
    const shares = g.node('Exp', [g.node('Sub', [g.node('Sub', [outside, g.column(lse.value)]), g.column(tail.value)])])
    dz = g.node('Add', [dz, g.node('Mul', [shares, tailGradient()])])
  }
  const { isIn, local } = within(g, ids, rows)
  const picked = g.node('Where', [isIn, own, g.float(0)])
  return g.node('ScatterElements', [dz, local, picked], { axis: 1, reduction: 'add' })
}
