import { byteLength, describe, elementCount } from '../../sdk/dtype.ts'
import { ShapeError } from '../../sdk/errors.ts'
import { bindings, type MemoryPlan, type Program, planMemory } from '../../sdk/graph/program.ts'
import { ops } from '../../sdk/ops/index.ts'
import { rounded, toBytes, toNumbers } from '../../sdk/quant/convert.ts'
import type { Target } from '../../sdk/target.ts'
import type { Job } from '../checks.ts'
import { type Executor, QueuedTarget } from '../queued-target.ts'

/**
 * Runs a program in f64, each op by its `reference`.
 *
 * @param inputs by name, one number an element, integers too
 * @param bound weights and state by name; state is written in place
 */
export function runReference(
  p: Program,
  inputs: Readonly<Record<string, Float64Array>>,
  bound: Readonly<Record<string, Float64Array>>,
): Record<string, Float64Array> {
  const run = execute(p, inputs, bound)
  while (true) {
    const step = run.next()
    if (step.done) return Object.fromEntries(Object.entries(p.outputs).map(([key, id]) => [key, step.value(id)]))
  }
}

/** Yields after each node. Returns the outputs by tensor id. */
function* execute(
  p: Program,
  inputs: Readonly<Record<string, Float64Array>>,
  bound: Readonly<Record<string, Float64Array>>,
): Generator<void, (id: number) => Float64Array> {
  const outputs = new Set(Object.values(p.outputs))
  const lastUse = new Map<number, number>()
  p.nodes.forEach((node, n) => {
    for (const id of [...node.inputs, ...node.outputs]) lastUse.set(id, n)
  })
  const values = new Map<number, Float64Array>()
  // A state has several versions; those that no node makes are the bound ones.
  const made = new Set(p.nodes.flatMap((node) => node.outputs))
  for (const t of p.tensors) {
    if (made.has(t.id)) continue
    const data = t.kind === 'input' ? inputs[t.name] : bound[t.name]
    if (data?.length !== elementCount(t.shape))
      throw new ShapeError(`${t.kind} ${t.name}: expected ${describe(t)}, got ${data?.length ?? 'no'} elements`)
    values.set(t.id, t.kind === 'state' ? data.slice() : data)
  }
  for (const [n, node] of p.nodes.entries()) {
    const results = ops[node.op].reference(
      node.inputs.map((id) => ({ shape: p.tensors[id].shape, data: values.get(id)! })),
      node.attrs,
    )
    node.outputs.forEach((id, i) => {
      const { kind, name, dtype } = p.tensors[id]
      // A cache of f16 is read as it is stored, in the same run too.
      const data = dtype === 'f16' ? rounded(results[i].data, dtype) : results[i].data
      values.set(id, data)
      if (kind === 'state') bound[name].set(data)
    })
    for (const id of [...node.inputs, ...node.outputs]) if (lastUse.get(id) === n && !outputs.has(id)) values.delete(id)
    yield
  }
  return (id) => values.get(id)!
}

interface Compiled {
  readonly program: Program
  readonly memory: MemoryPlan
  readonly bound: Readonly<Record<string, Uint8Array>>
}

/** Slow and obviously right: computes in f64, stores buffers in their declared dtypes. For tests. */
export const referenceTarget = (): Target => new QueuedTarget(executor)

const executor: Executor<Uint8Array, Compiled> = {
  name: 'reference',
  info: { description: 'f64 reference', threads: 1, memoryLimit: 4 * 2 ** 30, features: [] },
  supports: (op) => op in ops || `the reference has no op ${op}`,
  allocate: (type) => new Uint8Array(byteLength(type)),
  release() {},
  write: (memory, byteOffset, bytes) => memory.set(bytes, byteOffset),
  read: (memory, byteOffset, bytes) => memory.slice(byteOffset, byteOffset + bytes).buffer as ArrayBuffer,
  scratchBytes: (programs) => Math.max(0, ...programs.map((p) => planMemory(p).arenaBytes)),
  compile: (program, bound) => ({ program, memory: planMemory(program), bound }),
  unload() {},
  run,
  async close() {},
}

async function run(
  { program, bound }: Compiled,
  { steps, inputs, carry, collect, signal }: Job,
): Promise<ArrayBuffer[]> {
  const outputs = collect.map(({ tensor }) => new Uint8Array(steps * byteLength(tensor)))
  const current = new Map<string, Uint8Array>(inputs.map(({ tensor, bytes }) => [tensor.name, bytes]))
  for (let s = 0; s < steps; s++) {
    for (const { tensor, bytes, isSliced } of inputs)
      if (isSliced) current.set(tensor.name, bytes.subarray(s * byteLength(tensor), (s + 1) * byteLength(tensor)))
    const values = Object.fromEntries(
      [...bindings(program, 'input')].map(([name, { dtype }]) => [name, toNumbers(current.get(name)!, dtype)]),
    )
    const state: Record<string, Float64Array> = {}
    for (const [name, { dtype }] of [...bindings(program, 'weight'), ...bindings(program, 'state')])
      state[name] = toNumbers(bound[name], dtype)
    const nodes = execute(program, values, state)
    let node = nodes.next()
    while (!node.done) {
      if (signal) await new Promise((resolve) => setTimeout(resolve))
      signal?.throwIfAborted()
      node = nodes.next()
    }
    for (const [name, { dtype }] of bindings(program, 'state')) bound[name].set(toBytes(state[name], dtype))
    const made = node.value
    for (const { from, to } of carry) current.set(to.name, toBytes(made(from.id), from.dtype))
    for (const [i, { tensor }] of collect.entries())
      outputs[i].set(toBytes(made(tensor.id), tensor.dtype), s * byteLength(tensor))
  }
  return outputs.map((bytes) => bytes.buffer)
}
