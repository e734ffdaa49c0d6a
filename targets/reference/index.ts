import { byteLength, type DType, describe, elementCount, type TensorType } from '../../sdk/dtype.ts'
import { DeviceError, ShapeError } from '../../sdk/errors.ts'
import { bindings, type Program, planMemory } from '../../sdk/graph/program.ts'
import { ops } from '../../sdk/ops/index.ts'
import { toFloats } from '../../sdk/quant/convert.ts'
import type { Buffer, Executable, RunInputs, RunOptions, RunOutputs, Target } from '../../sdk/target.ts'

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
    if (step.done) return step.value
  }
}

/** Yields after each node. */
function* execute(
  p: Program,
  inputs: Readonly<Record<string, Float64Array>>,
  bound: Readonly<Record<string, Float64Array>>,
): Generator<void, Record<string, Float64Array>> {
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
      values.set(id, results[i].data)
      const t = p.tensors[id]
      if (t.kind === 'state') bound[t.name].set(results[i].data)
    })
    for (const id of [...node.inputs, ...node.outputs]) if (lastUse.get(id) === n && !outputs.has(id)) values.delete(id)
    yield
  }
  return Object.fromEntries(Object.entries(p.outputs).map(([key, id]) => [key, values.get(id)!]))
}

/** Slow and obviously right: computes in f64, stores buffers in their declared dtypes. For tests. */
export function referenceTarget(): Target {
  const memory = new Map<Buffer, Uint8Array>()
  const bytesOf = (buffer: Buffer): Uint8Array => {
    const bytes = memory.get(buffer)
    if (!bytes) throw new DeviceError(`${buffer.name}: this buffer is not of this reference target, or was freed`)
    return bytes
  }
  const create = (type: TensorType, name: string): Buffer => {
    const buffer = { name, type, bytes: byteLength(type) }
    memory.set(buffer, new Uint8Array(buffer.bytes))
    return buffer
  }
  const range = (buffer: Buffer, offset: number, bytes: number): Uint8Array => {
    if (offset < 0 || bytes < 0 || offset + bytes > buffer.bytes)
      throw new ShapeError(`${buffer.name}: bytes ${offset}..${offset + bytes} are outside its ${buffer.bytes} bytes`)
    return bytesOf(buffer).subarray(offset, offset + bytes)
  }
  // Runs are carried out in the order of the calls.
  let last: Promise<unknown> = Promise.resolve()

  async function run(
    p: Program,
    buffers: Readonly<Record<string, Buffer>>,
    given: RunInputs,
    { keep = [], signal }: RunOptions,
  ): Promise<RunOutputs> {
    const types = bindings(p, 'input')
    for (const name of Object.keys(given))
      if (!types.has(name))
        throw new ShapeError(`${p.name}: has no input ${name} (it has ${[...types.keys()].join(', ')})`)
    const inputs: Record<string, Float64Array> = {}
    for (const [name, type] of types) {
      const value = given[name]
      if (!value) throw new ShapeError(`${p.name}: input ${name} is missing, expected ${describe(type)}`)
      const bytes = ArrayBuffer.isView(value)
        ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
        : bytesOf(value)
      if (bytes.byteLength !== byteLength(type))
        throw new ShapeError(
          `${p.name}: input ${name} has ${bytes.byteLength} bytes, expected ${describe(type)} of ${byteLength(type)}`,
        )
      inputs[name] = decode(type.dtype, bytes)
    }
    const bound: Record<string, Float64Array> = {}
    for (const [name, buffer] of Object.entries(buffers)) bound[name] = decode(buffer.type.dtype, bytesOf(buffer))
    const steps = execute(p, inputs, bound)
    let step = steps.next()
    while (!step.done) {
      if (signal) await new Promise((resolve) => setTimeout(resolve))
      signal?.throwIfAborted()
      step = steps.next()
    }
    for (const name of bindings(p, 'state').keys()) bytesOf(buffers[name]).set(bytesFrom('f32', bound[name]))
    const outputs: RunOutputs = {}
    for (const [key, data] of Object.entries(step.value)) {
      const type = p.tensors[p.outputs[key]]
      const bytes = bytesFrom(type.dtype, data)
      if (!keep.includes(key)) {
        outputs[key] = type.dtype === 'i32' ? new Int32Array(bytes.buffer) : new Float32Array(bytes.buffer)
        continue
      }
      const kept = create({ dtype: type.dtype, shape: type.shape }, key)
      bytesOf(kept).set(bytes)
      outputs[key] = kept
    }
    return outputs
  }

  return {
    name: 'reference',
    info: { description: 'f64 reference', threads: 1, memoryLimit: 4 * 2 ** 30, features: [] },
    supports: (op) => op in ops || `the reference has no op ${op}`,
    create,
    write(buffer, data, byteOffset = 0) {
      range(buffer, byteOffset, data.byteLength).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    },
    async read(buffer, byteOffset = 0, bytes = buffer.bytes - byteOffset) {
      await last
      return range(buffer, byteOffset, bytes).slice().buffer
    },
    free(buffer) {
      memory.delete(buffer)
    },
    async compile(p, bound): Promise<Executable> {
      const unknown = [...new Set(p.nodes.map((node) => node.op))].filter((op) => !(op in ops))
      if (unknown.length) throw new DeviceError(`program ${p.name}: the reference has no op ${unknown.join(', ')}`)
      const buffers: Record<string, Buffer> = {}
      for (const kind of ['weight', 'state'] as const)
        for (const [name, type] of bindings(p, kind)) {
          const buffer = bound[name]
          if (!buffer)
            throw new ShapeError(`program ${p.name}: no buffer is bound to ${kind} ${name} ${describe(type)}`)
          if (describe(buffer.type) !== describe(type))
            throw new ShapeError(
              `program ${p.name}: ${kind} ${name} is bound to ${describe(buffer.type)}, expected ${describe(type)}`,
            )
          buffers[name] = buffer
        }
      return {
        memory: planMemory(p),
        run(inputs, options = {}) {
          const result = last.then(() => run(p, buffers, inputs, options))
          last = result.catch(() => undefined)
          return result
        },
        free() {},
      }
    },
    scratchBytes: (programs) => Math.max(0, ...programs.map((p) => planMemory(p).arenaBytes)),
    async close() {
      await last
      memory.clear()
    },
  }
}

/** Canonical bytes (sdk/dtype.ts) of any dtype to f64. */
export function decode(dtype: DType, bytes: Uint8Array): Float64Array {
  return new Float64Array(dtype === 'i32' ? new Int32Array(bytes.slice().buffer) : toFloats(bytes, dtype))
}

function bytesFrom(dtype: DType, data: Float64Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(dtype === 'i32' ? Int32Array.from(data).buffer : Float32Array.from(data).buffer)
}
