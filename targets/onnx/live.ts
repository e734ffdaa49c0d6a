// What a session's run holds at most, beside bound memory: onnxruntime goes from the last node back, depth first, and frees a value after
// its last reader. Guarded by a test against the process's memory: the order is onnxruntime's own affair.
import { elementCount } from '../../sdk/dtype.ts'
import { bytesOf, type Constant, type ElementType, elementTypes, type OnnxNode, type ValueType } from './model.ts'

/** Bytes of the values that live at the same time. `known`: bound memory; `outputs` have memory of their own. */
export function liveBytes(
  nodes: readonly OnnxNode[],
  known: ReadonlyMap<string, ValueType>,
  constants: ReadonlyMap<string, Constant>,
  outputs: ReadonlyMap<string, unknown>,
): number {
  const types = typesOf(nodes, known, constants)
  const readers = new Map<string, number>()
  for (const name of nodes.flatMap(({ inputs }) => inputs)) readers.set(name, (readers.get(name) ?? 0) + 1)
  // Values that share memory share a block.
  const blocks = new Map<string, { readonly bytes: number; values: number }>()
  let [live, most] = [0, 0]
  const leave = (name: string) => {
    const block = blocks.get(name)
    blocks.delete(name)
    if (block && --block.values === 0) live -= block.bytes
  }
  for (const { op, inputs, outputs: made } of inOrder(nodes)) {
    for (const name of made) {
      if (outputs.has(name)) continue
      const bytes = bytesOf(types.get(name)!)
      const reused = inputs.find((input) => {
        const block = blocks.get(input)
        if (views.has(op)) return block && input === inputs[0]
        return elementwise.has(op) && block?.values === 1 && readers.get(input) === 1 && block.bytes === bytes
      })
      const block = (reused !== undefined && blocks.get(reused)) || { bytes, values: 0 }
      if (block.values++ === 0) live += bytes
      blocks.set(name, block)
    }
    most = Math.max(most, live + workBytes(op, inputs, types))
    for (const name of inputs) {
      const left = readers.get(name)! - 1
      readers.set(name, left)
      if (left === 0) leave(name)
    }
    for (const name of made) if (!readers.get(name)) leave(name)
  }
  return most
}

/** Products by codes unpack a matrix that is not packed. */
function workBytes(op: string, [, codes]: readonly string[], types: ReadonlyMap<string, ValueType>): number {
  if (op !== 'MatMulNBits') return 0
  const [rows, blocks, bytes] = types.get(codes)!.shape
  return bytes === 32 ? 4 * rows * blocks * 32 : 0
}

/** Depth first from the last leaf, the newest input first. */
function inOrder(nodes: readonly OnnxNode[]): OnnxNode[] {
  const maker = new Map(nodes.flatMap(({ outputs }, i) => outputs.map((name) => [name, i] as const)))
  const before = nodes.map(({ inputs }) =>
    [...new Set(inputs.flatMap((name) => maker.get(name) ?? []))].sort((a, b) => a - b),
  )
  const isRead = new Set(before.flat())
  const stack = [...nodes.keys()].filter((i) => !isRead.has(i)).map((node) => ({ node, leaves: false }))
  const seen = new Set<number>()
  const order: OnnxNode[] = []
  for (let next = stack.pop(); next; next = stack.pop()) {
    const { node, leaves } = next
    if (leaves) order.push(nodes[node])
    else if (!seen.has(node)) {
      seen.add(node)
      stack.push(
        { node, leaves: true },
        ...before[node].filter((i) => !seen.has(i)).map((i) => ({ node: i, leaves: false })),
      )
    }
  }
  return order
}

const views = new Set(['Reshape', 'Identity'])
const wordsOf = (words: string) => new Set(words.split(' '))
/** They may write over what they read. */
const elementwise = wordsOf('Abs Add Clip Div Exp Log Mul Neg QuickGelu Sigmoid Softmax Softplus Sqrt Sub')
const combined = wordsOf('Add And BitShift BitwiseAnd BitwiseXor Div Max Min Mul Or Sub')
const sameAsFirst = wordsOf(
  'Abs Clip CumSum Exp Identity Log Neg Not QuickGelu RotaryEmbedding ScatterElements ScatterND Sigmoid Softmax Softplus Sqrt',
)
const comparisons = wordsOf('Equal Greater GreaterOrEqual Less LessOrEqual')
const reductions = wordsOf('ReduceMax ReduceMean ReduceMin ReduceSum ReduceSumSquare')

/** The types of all values that nodes make. */
function typesOf(
  nodes: readonly OnnxNode[],
  known: ReadonlyMap<string, ValueType>,
  constants: ReadonlyMap<string, Constant>,
): Map<string, ValueType> {
  const types = new Map([...known, ...constants])
  const shapes = new Map<string, string>()
  /** None where the run decides. */
  const numbers = (name: string): number[] => {
    const constant = constants.get(shapes.get(name) ?? name)
    if (!constant) return []
    const bytes = constant.data.slice().buffer
    return constant.type === 'i64' ? [...new BigInt64Array(bytes)].map(Number) : [...new Int32Array(bytes)]
  }
  for (const node of nodes) {
    // A shape that is put together to come after others is its last part.
    if (node.op === 'Concat' && constants.get(node.inputs.at(-1)!)?.type === 'i64')
      shapes.set(node.outputs[0], node.inputs.at(-1)!)
    const made = typesOfNode(
      node,
      node.inputs.map((name) => types.get(name)!),
      numbers,
    )
    for (const [i, name] of node.outputs.entries()) types.set(name, made[i] ?? made[0])
  }
  return types
}

function typesOfNode(
  { op, inputs, attributes }: OnnxNode,
  given: readonly ValueType[],
  numbers: (name: string) => number[],
): ValueType[] {
  const [x, y] = given
  const as = (shape: readonly number[], type: ElementType = x.type): ValueType[] => [{ type, shape }]
  const number = (name: string) => attributes[name] as number
  const rank = x?.shape.length
  const together = () => given.map(({ shape }) => shape).reduce(broadcast)
  if (comparisons.has(op)) return as(together(), 'bool')
  if (sameAsFirst.has(op)) return as(x.shape)
  if (combined.has(op)) return as(together())
  if (reductions.has(op)) {
    const axes = inputs[1] ? numbers(inputs[1]).map((axis) => (axis + rank) % rank) : [...x.shape.keys()]
    const kept = x.shape.map((length, axis) => (axes.includes(axis) ? 1 : length))
    return as(attributes.keepdims === 0 ? kept.filter((_, axis) => !axes.includes(axis)) : kept)
  }
  switch (op) {
    case 'Where':
      return as(together(), y.type)
    case 'Cast':
      return as(
        x.shape,
        (Object.keys(elementTypes) as ElementType[]).find((type) => elementTypes[type] === attributes.to),
      )
    case 'Concat':
      return as(
        x.shape.map((length, axis) =>
          axis === (number('axis') + rank) % rank ? given.reduce((sum, { shape }) => sum + shape[axis], 0) : length,
        ),
      )
    case 'Expand':
      return as(broadcast(x.shape, numbers(inputs[1])))
    case 'Gemm':
    case 'MatMul':
    case 'FusedMatMul': {
      const rows = x.shape[rank - (attributes.transA ? 1 : 2)]
      const columns = y.shape[y.shape.length - (attributes.transB ? 2 : 1)]
      return as([...broadcast(x.shape.slice(0, -2), y.shape.slice(0, -2)), rows, columns])
    }
    case 'MatMulNBits':
      return as([...x.shape.slice(0, -1), number('N')])
    case 'DequantizeLinear':
      return as(x.shape, 'f32')
    case 'Gather':
      return as([...y.shape, ...x.shape.slice(1)])
    case 'GatherElements':
      return as(y.shape)
    case 'GatherND':
      return as([...y.shape.slice(0, -1), ...x.shape.slice(y.shape.at(-1))])
    case 'Pad': {
      const pads = numbers(inputs[1])
      return as(x.shape.map((length, axis) => length + pads[axis] + pads[rank + axis]))
    }
    case 'Range':
      return as([numbers(inputs[1])[0] - numbers(inputs[0])[0]])
    case 'ArgMax': {
      const axis = (number('axis') + rank) % rank
      const kept = x.shape.map((length, i) => (i === axis ? 1 : length))
      return as(attributes.keepdims === 0 ? kept.filter((_, i) => i !== axis) : kept, 'i64')
    }
    case 'Shape':
      return as([0], 'i64')
    case 'SimplifiedLayerNormalization':
      return [...as(x.shape), ...as([...x.shape.slice(0, -1), 1])]
    case 'Slice': {
      // Where the run says from where on or up to where, 0: there lies most memory.
      const [[from = 0], [to = 0], [axis]] = inputs.slice(1).map(numbers)
      return as(x.shape.map((length, i) => (i === axis ? Math.min(to, length) - from : length)))
    }
    case 'Transpose':
      return as((attributes.perm as number[]).map((axis) => x.shape[axis]))
    case 'Reshape': {
      const wanted = numbers(inputs[1])
      const rest = elementCount(x.shape) / elementCount(wanted.filter((length) => length > 0))
      return as(wanted.map((length) => (length === -1 ? rest : length)))
    }
    case 'TopK': {
      // At most all, where the run says how many.
      const shape = [...x.shape.slice(0, -1), numbers(inputs[1])[0] ?? x.shape.at(-1)!]
      return [...as(shape), ...as(shape, 'i64')]
    }
    default:
      throw new Error(`${op}: its shape is not known (targets/onnx/live.ts)`)
  }
}

/** Of shapes, as numpy does it. */
function broadcast(a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length)
  const [x, y] = [a, b].map((shape) => [...Array(rank - shape.length).fill(1), ...shape])
  return x.map((length, axis) => (length === 1 ? y[axis] : length))
}
