import { byteLength, describe, type TensorType } from '../dtype.ts'
import type { Graph, Node, Tensor, TensorKind } from './graph.ts'
import type { Attrs } from './spec.ts'

export interface ProgramTensor extends TensorType {
  readonly id: number
  readonly name: string
  readonly kind: TensorKind
}

export interface ProgramNode {
  readonly op: string
  readonly inputs: readonly number[]
  readonly outputs: readonly number[]
  readonly attrs: Attrs
  /** Pairs [input, output] of positions: the output may overwrite the input. */
  readonly inplace: readonly (readonly [number, number])[]
  /** Pairs [input, output] of positions: the output is the input's memory (state versions, views). */
  readonly alias: readonly (readonly [number, number])[]
}

/** Plain cloneable data: what a target compiles. Shapes are fixed. */
export interface Program {
  readonly name: string
  readonly tensors: readonly ProgramTensor[]
  readonly nodes: readonly ProgramNode[]
  readonly outputs: Readonly<Record<string, number>>
}

/** Freezes a graph: drops nodes that reach neither an output nor a state, numbers the tensors, resolves aliases. */
export function toProgram(g: Graph, name: string): Program {
  const live = new Set<Tensor>(g.outputs.values())
  const kept: Node[] = []
  for (let n = g.nodes.length - 1; n >= 0; n--) {
    const node = g.nodes[n]
    if (!node.spec.state && !node.outputs.some((t) => live.has(t))) continue
    kept.push(node)
    for (const t of node.inputs) live.add(t)
  }
  kept.reverse()
  const tensors: ProgramTensor[] = []
  const ids = new Map<Tensor, number>()
  const idOf = (t: Tensor): number => {
    if (!ids.has(t)) {
      ids.set(t, tensors.length)
      tensors.push({ id: tensors.length, name: t.name, kind: t.kind, dtype: t.dtype, shape: [...t.shape] })
    }
    return ids.get(t)!
  }
  const nodes = kept.map(
    (node): ProgramNode => ({
      op: node.spec.name,
      inputs: node.inputs.map(idOf),
      outputs: node.outputs.map(idOf),
      attrs: node.attrs,
      inplace: node.spec.inplace ?? [],
      // Those of optional arguments that are left out are no pairs.
      alias: (node.spec.state ?? node.spec.view ?? []).filter(
        ([i, o]) => i < node.inputs.length && o < node.outputs.length,
      ),
    }),
  )
  const outputs = Object.fromEntries([...g.outputs].map(([key, t]) => [key, idOf(t)]))
  return { name, tensors, nodes, outputs }
}

/** Names and types of what must be bound (weights, state) or given at each run (inputs). */
export function bindings(p: Program, kind: Exclude<TensorKind, 'temp'>): Map<string, TensorType> {
  return new Map(p.tensors.filter((t) => t.kind === kind).map((t) => [t.name, { dtype: t.dtype, shape: t.shape }]))
}

/** Where a tensor lives: a buffer bound by name, or bytes of the arena. */
export type Location = { readonly bound: string } | { readonly offset: number; readonly bytes: number }

export interface MemoryPlan {
  /** Bytes of scratch that one run needs, inputs and outputs included; weights and state are not. */
  readonly arenaBytes: number
  /** By tensor id. */
  readonly locations: readonly Location[]
  /** By node: offset of the node's own scratch, or -1. */
  readonly scratch: readonly number[]
  /** By tensor id: first and last node at which the bytes are in use (-1: before the first node). */
  readonly lifetimes: readonly (readonly [first: number, last: number])[]
}

interface Block {
  bytes: number
  first: number
  last: number
  offset: number
}

export interface PlanOptions {
  /** Bytes, a power of two. */
  readonly alignment?: number
  /** Bytes, a multiple of the alignment: nothing lies across a multiple of it, so that the arena may be several buffers. */
  readonly boundary?: number
  /** By node: bytes that its kernels need beside its inputs and outputs. */
  readonly scratchBytes?: readonly number[]
}

/** Liveness, aliases, in-place reuse, then greedy placement by size: exact bytes before anything is allocated. */
export function planMemory(
  p: Program,
  { alignment = 64, boundary = Number.POSITIVE_INFINITY, scratchBytes }: PlanOptions = {},
): MemoryPlan {
  // Tensors that share bytes share a block; bound tensors have none.
  const blockOf: (Block | null)[] = new Array(p.tensors.length).fill(null)
  const boundTo: (string | null)[] = p.tensors.map((t) => (t.kind === 'weight' || t.kind === 'state' ? t.name : null))
  const lastRead: number[] = new Array(p.tensors.length).fill(-1)
  p.nodes.forEach((node, n) => {
    for (const id of node.inputs) lastRead[id] = n
  })
  const outputs = new Set(Object.values(p.outputs))
  const lastUse = (id: number) => (outputs.has(id) ? p.nodes.length : lastRead[id])
  // Aliased tensors keep the block alive as long as the longest-lived of them.
  const blocks: Block[] = []
  const open = (bytes: number, first: number, last: number): Block => {
    const block = { bytes: Math.max(alignment, Math.ceil(bytes / alignment) * alignment), first, last, offset: 0 }
    blocks.push(block)
    return block
  }
  // A caller's input is never written, nor is a view of it.
  const inputBlocks = new Set<Block>()
  for (const t of p.tensors)
    if (t.kind === 'input') {
      blockOf[t.id] = open(byteLength(t), -1, Math.max(0, lastUse(t.id)))
      inputBlocks.add(blockOf[t.id]!)
    }
  // Lifetimes must be known before in-place reuse is decided, so aliases are resolved first.
  const aliasLast = [...p.tensors.keys()].map(lastUse)
  for (let n = p.nodes.length - 1; n >= 0; n--)
    for (const [i, o] of p.nodes[n].alias) {
      const [input, output] = [p.nodes[n].inputs[i], p.nodes[n].outputs[o]]
      aliasLast[input] = Math.max(aliasLast[input], aliasLast[output])
    }
  p.nodes.forEach((node, n) => {
    node.outputs.forEach((id, o) => {
      const alias = node.alias.find(([, output]) => output === o)
      if (alias) {
        const source = node.inputs[alias[0]]
        boundTo[id] = boundTo[source]
        blockOf[id] = blockOf[source]
        if (blockOf[id]) blockOf[id].last = Math.max(blockOf[id].last, aliasLast[id], n)
        return
      }
      const bytes = byteLength(p.tensors[id])
      for (const [i, output] of node.inplace) {
        const source = node.inputs[i]
        const block = blockOf[source]
        const usedTwice = node.inputs.filter((other) => blockOf[other] === block).length > 1
        if (output !== o || !block || block.last !== n || usedTwice || inputBlocks.has(block)) continue
        if (byteLength(p.tensors[source]) !== bytes) continue
        blockOf[id] = block
        block.last = Math.max(n, aliasLast[id])
        return
      }
      blockOf[id] = open(bytes, n, Math.max(n, aliasLast[id]))
    })
  })
  const scratchBlocks = p.nodes.map((_, n) => {
    const bytes = scratchBytes?.[n] ?? 0
    return bytes > 0 ? open(bytes, n, n) : null
  })
  const arenaBytes = place(blocks, boundary)
  return {
    arenaBytes,
    locations: p.tensors.map((t): Location => {
      const name = boundTo[t.id]
      if (name !== null) return { bound: name }
      return { offset: blockOf[t.id]!.offset, bytes: byteLength(t) }
    }),
    scratch: scratchBlocks.map((b) => b?.offset ?? -1),
    lifetimes: p.tensors.map((t) => [blockOf[t.id]?.first ?? -1, blockOf[t.id]?.last ?? p.nodes.length]),
  }
}

/** Largest first, each at the lowest offset that is free for its whole lifetime. Returns the arena's bytes. */
function place(blocks: Block[], boundary: number): number {
  const fitting = (offset: number, bytes: number) =>
    (offset % boundary) + bytes > boundary ? Math.ceil(offset / boundary) * boundary : offset
  const placed: Block[] = []
  let end = 0
  for (const block of [...blocks].sort((a, b) => b.bytes - a.bytes || a.first - b.first)) {
    let offset = 0
    // `placed` is kept sorted by offset.
    for (const other of placed) {
      if (other.last < block.first || block.last < other.first) continue
      if (other.offset - offset >= block.bytes) break
      offset = fitting(Math.max(offset, other.offset + other.bytes), block.bytes)
    }
    block.offset = offset
    end = Math.max(end, offset + block.bytes)
    let at = placed.length
    while (at > 0 && placed[at - 1].offset > offset) at--
    placed.splice(at, 0, block)
  }
  return end
}

/** A listing that reads like llm.c: one line a node with shapes, attributes, bytes and lifetimes. */
export function print(p: Program, plan: MemoryPlan = planMemory(p)): string {
  const line = (id: number) => `${p.tensors[id].name} ${describe(p.tensors[id])}`
  const where = (id: number) => {
    const at = plan.locations[id]
    const [first, last] = plan.lifetimes[id]
    return 'bound' in at ? at.bound : `@${at.offset}+${at.bytes} live ${first}..${last}`
  }
  const head = `program ${p.name}: ${p.nodes.length} nodes, arena ${plan.arenaBytes} bytes`
  const nodes = p.nodes.map((node, n) => {
    const attrs = Object.entries(node.attrs).map(([k, v]) => `${k}=${v}`)
    const outs = node.outputs.map((id) => `${line(id)} {${where(id)}}`)
    return `${String(n).padStart(5)}  ${outs.join(', ')} = ${[node.op, ...attrs].join(' ')}(${node.inputs.map((id) => line(id)).join(', ')})`
  })
  const outputs = Object.entries(p.outputs).map(([key, id]) => `       output ${key} = ${line(id)}`)
  return [head, ...nodes, ...outputs].join('\n')
}
