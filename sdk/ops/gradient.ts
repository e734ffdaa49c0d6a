import { byteLength } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import type { Graph, Node, Tensor } from '../graph/graph.ts'
import { accumulate } from './accumulate.ts'
import { addOp } from './elementwise.ts'

export interface GradientOptions {
  /** Gradients of these tensors are returned; trainable weights accumulate into `g.gradState` anyway. */
  readonly wrt?: readonly Tensor[]
  /** Recompute the nodes of each region in the reverse pass instead of keeping their results. */
  readonly recompute?: boolean
  /** Bytes of dear results (`g.keep`) that are kept nevertheless, those of the last regions first. */
  readonly keptBytes?: number
}

/**
 * Reverse-mode gradient: appends each op's `vjp` in reverse node order.
 *
 * @param seeds outputs and their gradients (for a scalar loss: the loss and a one)
 * @returns gradients of `wrt`, null where nothing depends on it
 */
export function gradient(
  g: Graph,
  seeds: readonly (readonly [output: Tensor, grad: Tensor])[],
  { wrt = [], recompute = false, keptBytes = 0 }: GradientOptions = {},
): (Tensor | null)[] {
  const forward = [...g.nodes]
  const wanted = new Set<Tensor>(wrt)
  // Tensors through which a gradient must flow.
  const active = new Set<Tensor>(g.tensors.filter((t) => t.trainable || wanted.has(t)))
  for (const node of forward)
    if (node.spec.vjp && node.inputs.some((t) => active.has(t))) for (const t of node.outputs) active.add(t)

  const grads = new Map<Tensor, Tensor>()
  const add = (t: Tensor, grad: Tensor) => {
    const known = grads.get(t)
    grads.set(t, known ? g.apply(addOp, [known, grad], {}, `d(${t.name})`)[0] : grad)
  }
  for (const [output, grad] of seeds) add(output, grad)

  const recomputed = new Map<Tensor, Tensor>()
  const kept = keptOf(g, forward, keptBytes)
  const regionsDone = new Set<string>()
  const use = (t: Tensor) => recomputed.get(t) ?? t
  const regions = new Map<string, Node[]>()
  for (const node of forward) {
    if (node.region === null) continue
    if (!regions.has(node.region)) regions.set(node.region, [])
    regions.get(node.region)!.push(node)
  }

  for (let n = forward.length - 1; n >= 0; n--) {
    const node = forward[n]
    const outputGrads = node.outputs.map((t) => grads.get(t) ?? null)
    const need = node.inputs.map((t) => active.has(t))
    if (outputGrads.every((t) => t === null) || !need.some(Boolean)) continue
    if (!node.spec.vjp) continue
    if (recompute && node.region !== null && !regionsDone.has(node.region)) {
      regionsDone.add(node.region)
      for (const again of regions.get(node.region)!) {
        if (again.spec.state)
          throw new ShapeError(`${again.spec.name}: writes state inside recompute region ${node.region}`)
        if (again.outputs.every((t) => kept.has(t))) continue
        const outputs = g.apply(again.spec, again.inputs.map(use), again.attrs, again.outputs[0].name)
        again.outputs.forEach((t, i) => {
          if (!kept.has(t)) recomputed.set(t, outputs[i])
        })
      }
    }
    const inputGrads = node.spec.vjp(
      g,
      { inputs: node.inputs.map(use), outputs: node.outputs.map(use), attrs: node.attrs },
      outputGrads,
      need,
    )
    for (const t of node.outputs) if (!wanted.has(t)) grads.delete(t)
    inputGrads.forEach((grad, i) => {
      if (grad === null || !need[i]) return
      const t = node.inputs[i]
      if (t.trainable && !wanted.has(t)) accumulate(g, g.gradState(t), grad)
      else add(t, grad)
    })
  }
  return wrt.map((t) => grads.get(t) ?? null)
}

/** Second results (a row's scale, an adapter's h) always: they are small, and their node costs a product. Dear ones as far as they fit. */
function keptOf(g: Graph, forward: readonly Node[], bytes: number): Set<Tensor> {
  const kept = new Set(forward.flatMap(({ outputs }) => outputs.slice(1)))
  let left = bytes
  for (const { outputs } of forward.toReversed())
    if (g.dear.has(outputs[0]) && byteLength(outputs[0]) <= left) {
      left -= byteLength(outputs[0])
      kept.add(outputs[0])
    }
  return kept
}
