import { isQuantized } from '../../sdk/dtype.ts'
import type { Program } from '../../sdk/graph/program.ts'
import { liveBytes } from './live.ts'
import { lowering } from './lower/index.ts'
import type { Lower, Operand } from './lower/types.ts'
import { type BoundType, bytesOf, type ElementType, OnnxGraph, type ValueType } from './model.ts'

/** A program as onnxruntime takes it. */
export interface ProgramGraph {
  readonly model: Uint8Array<ArrayBuffer>
  /** Bound memory, or by tensor what a run is given. */
  readonly inputs: ReadonlyMap<string, BoundType>
  readonly initializers: ReadonlyMap<string, BoundType>
  readonly outputs: ReadonlyMap<string, ValueType>
  /** Outputs that are states: value -> name. */
  readonly states: ReadonlyMap<string, string>
  /** Tensor id -> value, of inputs and of the program's outputs. */
  readonly given: ReadonlyMap<number, string>
  readonly asked: ReadonlyMap<number, string>
}

const elementOf = (dtype: string): ElementType => (dtype === 'i32' ? 'i32' : 'f32')

/** The graph of a program, for a session. */
export function graphOf(program: Program): ProgramGraph {
  const { g, ...rest } = lowered(program)
  return { model: g.write(), inputs: g.inputs, initializers: g.initializers, outputs: g.outputs, ...rest }
}

/** What sessions of these programs take beside what is bound to them. */
export function sessionBytes(programs: readonly Program[]): number {
  const packed = new Map<string, number>()
  let [most, ofNodes] = [0, 0]
  for (const program of programs) {
    const { g } = lowered(program)
    const { nodes } = g.pruned()
    most = Math.max(most, liveBytes(nodes, new Map([...g.inputs, ...g.initializers]), g.constants, g.outputs))
    ofNodes += nodes.length * bytesOfNode
    for (const { op, inputs, attributes } of nodes) {
      if (op !== 'MatMulNBits') continue
      const [codes, scales] = inputs.slice(1).map((name) => bytesOf(g.initializers.get(name)!))
      // Beside int8 activations scales are packed too, and the sums of blocks; 8 bits beside floats are not.
      if (attributes.accuracy_level === 4) packed.set(`${inputs[1]} rounded`, codes + 2 * scales)
      else if (attributes.bits === 4) packed.set(inputs[1], codes)
    }
  }
  return most + ofNodes + [...packed.values()].reduce((sum, bytes) => sum + bytes, 0)
}

/** Measured: a LoRA step of 24 layers has 13,000 nodes. */
const bytesOfNode = 10_000

/** Lowers all nodes. A state's last version is an output in the place of its first, which is an input. */
function lowered({ tensors, nodes, outputs }: Program) {
  const g = new OnnxGraph()
  const values = new Map<number, string>()
  const given = new Map<number, string>()
  const made = new Set(nodes.flatMap((node) => node.outputs))
  for (const { id, kind, name, dtype, shape } of tensors) {
    if (made.has(id)) continue
    const type = { type: elementOf(dtype), shape }
    if (kind === 'input') {
      given.set(id, g.input(`input/${name}`, type))
      values.set(id, given.get(id)!)
    } else if (isQuantized(dtype)) values.set(id, '')
    else values.set(id, g.input(`bound/${name}`, { ...type, source: { bound: name, part: 'values', row: 0 } }))
  }
  const operand = (id: number): Operand => {
    const { kind, name, dtype, shape } = tensors[id]
    const bound = kind === 'weight' || kind === 'state' ? name : ''
    return { dtype, shape, bound, value: values.get(id)! }
  }
  for (const { op, inputs, outputs, attrs } of nodes) {
    const lower = lowering[op as keyof typeof lowering] as Lower<unknown>
    const results = lower(g, { inputs: inputs.map(operand), attrs })
    outputs.forEach((id, o) => {
      values.set(id, results[o])
      const { kind, name, dtype, shape } = tensors[id]
      if (kind === 'state' && !g.hasWritten(results[o])) g.writes(name, results[o], { type: elementOf(dtype), shape })
    })
  }
  const asked = new Map<number, string>()
  for (const id of new Set(Object.values(outputs))) {
    const { dtype, shape } = tensors[id]
    const value = values.get(id)!
    const own = g.inputs.has(value) ? g.node('Identity', [value]) : value
    asked.set(id, own)
    if (!g.isState(own)) g.output(own, { type: elementOf(dtype), shape })
  }
  const states = g.finishStates()
  return { g, states, given, asked }
}
