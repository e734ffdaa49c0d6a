import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import { megabytes } from '../../sdk/bytes.ts'
import { elementCount } from '../../sdk/dtype.ts'
import { FormatError } from '../../sdk/errors.ts'

/** ONNX's numbers of element types (onnx.proto, TensorProto.DataType). */
export const elementTypes = { f32: 1, u8: 2, i32: 6, i64: 7, bool: 9, f16: 10, f64: 11, u32: 12, u4: 21 } as const
export type ElementType = keyof typeof elementTypes

export interface ValueType {
  readonly type: ElementType
  readonly shape: readonly number[]
}
/** Lengths, or names of those that a run decides. */
export type Dimensions = readonly (number | string)[]
const bytesOfElement = { f32: 4, u8: 1, i32: 4, i64: 8, bool: 1, f16: 2, f64: 8, u32: 4, u4: 0.5 } as const
export const bytesOf = ({ type, shape }: ValueType): number => Math.ceil(elementCount(shape) * bytesOfElement[type])
export interface Constant extends ValueType {
  readonly data: Uint8Array
}
export interface BoundType extends ValueType {
  readonly source?: Source
}

/** Where the memory of an input or initializer lies: a part of a bound weight or state (memory.ts), from a row on. */
export interface Source {
  readonly bound: string
  readonly part: Part
  readonly row: number
}
/**
 * Numbers, or of quantized weights the codes, the scales and the offsets of their blocks; of q8 also the high and the low halves of its
 * codes. `halves`: zero points, the same for all weights.
 */
export type Part = 'values' | 'codes' | 'scales' | 'offsets' | 'high' | 'low' | 'halves'

/** Whole numbers are INT attributes: a FLOAT that may be whole is written as { float }. */
export type Attribute = number | string | readonly number[] | { readonly float: number }

export interface OnnxNode {
  readonly op: string
  readonly domain: string
  readonly inputs: readonly string[]
  readonly outputs: readonly string[]
  readonly attributes: Readonly<Record<string, Attribute>>
  /** Values that are made before, where anything needs them. */
  readonly after: readonly string[]
}

const microsoft = new Set(['FusedMatMul', 'GroupQueryAttention', 'MatMulNBits', 'QuickGelu', 'RotaryEmbedding'])

/**
 * An ONNX graph under construction. Values are known by their names; what a program binds are inputs, weights that onnxruntime packs
 * for itself are initializers without data. What no output needs is left out.
 */
export class OnnxGraph {
  readonly inputs = new Map<string, BoundType>()
  readonly initializers = new Map<string, BoundType>()
  readonly outputs = new Map<string, ValueType>()
  readonly constants = new Map<string, Constant>()
  private readonly written = new Map<string, { value: string; type: ValueType }>()
  private readonly seen = new Set<string>()
  private readonly memo = new Map<string, unknown>()
  private readonly nodes: OnnxNode[] = []
  private readonly leaves = new Set<string>()
  /** Of inputs and outputs of exported models, whose lengths have names. */
  private readonly dimensions = new Map<string, Dimensions>()
  private named = 0

  input(name: string, value: BoundType): string {
    this.inputs.set(name, value)
    return name
  }

  initializer(name: string, value: BoundType): string {
    this.initializers.set(name, value)
    return name
  }

  output(name: string, value: ValueType): void {
    this.outputs.set(name, value)
  }

  /** What a caller gives to an exported model, and what it gets: a value under a name of its own. */
  openInput(name: string, type: ElementType, dimensions: Dimensions): string {
    this.dimensions.set(name, dimensions)
    return this.input(name, { type, shape: [] })
  }
  openOutput(name: string, value: string, type: ElementType, dimensions: Dimensions): void {
    this.nodes.push({ op: 'Identity', domain: '', inputs: [value], outputs: [name], attributes: {}, after: [] })
    this.dimensions.set(name, dimensions)
    this.output(name, { type, shape: [] })
  }

  /** `value` is the newest version of a bound state; it may have another shape than `seenAs`, which readers have of it. */
  writes(bound: string, value: string, type: ValueType, seenAs = value): void {
    this.written.set(bound, { value, type })
    this.seen.add(seenAs)
  }
  hasWritten(value: string): boolean {
    return this.seen.has(value)
  }
  isState(value: string): boolean {
    return [...this.written.values()].some((state) => state.value === value)
  }
  /** States become outputs: value -> name. */
  finishStates(): Map<string, string> {
    for (const { value, type } of this.written.values()) this.output(value, type)
    return new Map([...this.written].map(([bound, { value }]) => [value, bound]))
  }

  /** One node of one output, or its first. */
  node(op: string, inputs: readonly string[], attributes: OnnxNode['attributes'] = {}): string {
    return this.nodeOf(1, op, inputs, attributes)[0]
  }

  nodeOf(
    count: number,
    op: string,
    inputs: readonly string[],
    attributes: OnnxNode['attributes'] = {},
    after: readonly string[] = [],
  ): string[] {
    const outputs = Array.from({ length: count }, () => this.fresh(op))
    this.nodes.push({ op, domain: microsoft.has(op) ? 'com.microsoft' : '', inputs, outputs, attributes, after })
    return outputs
  }

  /** Says that this node may wait for all others, where none reads it (`inOrder`). */
  asLeaf(output: string): string {
    this.leaves.add(output)
    return output
  }

  /** Made at the first time only. */
  once<T>(key: string, make: () => T): T {
    if (!this.memo.has(key)) this.memo.set(key, make())
    return this.memo.get(key) as T
  }

  float(value: number): string {
    return this.constant('f32', [], new Uint8Array(Float32Array.of(value).buffer))
  }
  double(value: number): string {
    return this.constant('f64', [], new Uint8Array(Float64Array.of(value).buffer))
  }
  /** int64, of shape [n]: shapes, axes, indices. */
  ints(...values: number[]): string {
    return this.constant('i64', [values.length], new Uint8Array(BigInt64Array.from(values.map(BigInt)).buffer))
  }
  int32(value: number): string {
    return this.constant('i32', [], new Uint8Array(Int32Array.of(value).buffer))
  }
  uint32(value: number): string {
    return this.constant('u32', [], new Uint8Array(Uint32Array.of(value).buffer))
  }
  byte(value: number): string {
    return this.constant('u8', [], Uint8Array.of(value))
  }

  // What many lowerings say.
  /** i32 of from..to-1, counted up in the run. */
  range(from: number, to: number): string {
    return this.once(`range ${from} ${to}`, () => this.node('Range', [this.int32(from), this.int32(to), this.int32(1)]))
  }
  column(x: string): string {
    return this.reshape(x, [-1, 1])
  }
  /** `after`: small values of the same large ones, which would be kept for them (`inOrder`). */
  reshape(x: string, shape: readonly number[], after: readonly string[] = []): string {
    return this.nodeOf(1, 'Reshape', [x, this.ints(...shape)], {}, after)[0]
  }
  slice(x: string, axis: number, from: number, to: number): string {
    return this.node('Slice', [x, this.ints(from), this.ints(to), this.ints(axis)])
  }
  cast(x: string, to: ElementType): string {
    return this.node('Cast', [x], { to: elementTypes[to] })
  }
  sum(x: string, axis: number, keep = false): string {
    return this.node('ReduceSum', [x, this.ints(axis)], { keepdims: keep ? 1 : 0 })
  }
  max(x: string, axis: number, keep = false): string {
    return this.node('ReduceMax', [x, this.ints(axis)], { keepdims: keep ? 1 : 0 })
  }

  /** The model's bytes (ModelProto). Data of initializers is given by AddExternalInitializers. */
  write(): Uint8Array<ArrayBuffer> {
    const { nodes, needed } = this.pruned()
    const w = modelWriter()
    message(w, 7, () => {
      this.writeNodes(w, nodes, needed)
      for (const [name, { type, shape }] of this.initializers)
        message(w, 5, () => {
          writeTensor(w, name, type, shape)
          // A place must be named.
          message(w, 13, () =>
            w.tag(1, WireType.LengthDelimited).string('location').tag(2, WireType.LengthDelimited).string('memory'),
          )
          w.tag(14, WireType.Varint).int32(1)
        })
      this.writeValues(w, this.inputs)
    })
    return w.finish() as Uint8Array<ArrayBuffer>
  }

  /**
   * A model that stands for itself, piece by piece: what is bound to memory has its data within. Throws FormatError where it has more
   * bytes than a message may have.
   */
  async *file(file: string, dataOf: (source: Source) => Promise<ArrayBuffer>): AsyncGenerator<Uint8Array, void> {
    const { nodes, needed } = this.pruned()
    // Packed or not, here it is one.
    const plain = (name: string) => name.replace(/\/packed$/, '')
    const bound = [...this.initializers, ...this.inputs].filter(([, { source }]) => source)
    const weights = new Map(bound.map(([name, type]) => [plain(name), type]))
    const head = new BinaryWriter()
    const renamed = nodes.map((node) => ({ ...node, inputs: node.inputs.map(plain) }))
    this.writeNodes(head, renamed, needed)
    this.writeValues(head, new Map([...this.inputs].filter(([, { source }]) => !source)))
    const pieces = [...weights].map(([name, type]) => {
      const tensor = new BinaryWriter()
      writeTensor(tensor, name, type.type, type.shape)
      const fields = tensor.tag(9, WireType.LengthDelimited).uint32(bytesOf(type)).finish()
      const before = new BinaryWriter()
        .tag(5, WireType.LengthDelimited)
        .uint32(fields.length + bytesOf(type))
        .finish()
      return { before, fields, type }
    })
    const own = head.finish()
    const length = pieces.reduce(
      (sum, { before, fields, type }) => sum + before.length + fields.length + bytesOf(type),
      own.length,
    )
    if (length >= 2 ** 31)
      throw new FormatError(
        `${file}: would have ${megabytes(length)}, an ONNX file has 2,147 MB at most: leave this type out`,
      )
    yield modelWriter().tag(7, WireType.LengthDelimited).uint32(length).finish()
    yield own
    for (const { before, fields, type } of pieces) {
      yield before
      yield fields
      yield new Uint8Array(await dataOf(type.source!))
    }
  }

  /** What the outputs need, in order; inputs and initializers that nobody reads go. */
  pruned(): { nodes: OnnxNode[]; needed: ReadonlySet<string> } {
    const needed = new Set(this.outputs.keys())
    const kept = this.inOrder()
      .reverse()
      .filter(({ inputs, outputs }) => {
        if (!outputs.some((name) => needed.has(name))) return false
        for (const name of inputs) needed.add(name)
        return true
      })
      .reverse()
    for (const name of [...this.inputs.keys()]) if (!needed.has(name)) this.inputs.delete(name)
    for (const name of [...this.initializers.keys()]) if (!needed.has(name)) this.initializers.delete(name)
    return { nodes: kept.flatMap((node) => this.withOrder(node, needed)), needed }
  }

  private writeNodes(w: BinaryWriter, nodes: readonly OnnxNode[], needed: ReadonlySet<string>): void {
    for (const node of nodes) message(w, 1, () => writeNode(w, node))
    w.tag(2, WireType.LengthDelimited).string('program')
    for (const [name, { type, shape, data }] of this.constants)
      if (needed.has(name))
        message(w, 5, () => {
          writeTensor(w, name, type, shape)
          w.tag(9, WireType.LengthDelimited).bytes(data)
        })
  }

  private writeValues(w: BinaryWriter, inputs: ReadonlyMap<string, ValueType>): void {
    const write = (field: number, name: string, { type, shape }: ValueType) =>
      message(w, field, () => writeValue(w, name, type, this.dimensions.get(name) ?? shape))
    for (const [name, value] of inputs) write(11, name, value)
    for (const [name, value] of this.outputs) write(12, name, value)
  }

  /**
   * Sums of weights' gradients stand last, the deepest layer's at the very end: onnxruntime goes back from the last node, and would
   * keep every activation until the whole reverse pass is done.
   */
  private inOrder(): OnnxNode[] {
    const read = new Set(this.nodes.flatMap(({ inputs }) => inputs))
    const waits = ({ outputs }: OnnxNode) => outputs.every((name) => this.leaves.has(name) && !read.has(name))
    return [...this.nodes.filter((node) => !waits(node)), ...this.nodes.filter(waits).reverse()]
  }

  /** Only values order nodes: the shape of one that comes after others begins with no length of theirs. */
  private withOrder(node: OnnxNode, needed: ReadonlySet<string>): OnnxNode[] {
    const first = node.after.filter((name) => needed.has(name))
    if (first.length === 0) return [node]
    const [x, shape] = node.inputs
    const plain = { domain: '', after: [] }
    const none = first.map((name) => {
      return { ...plain, op: 'Shape', inputs: [name], outputs: [this.fresh('Shape')], attributes: { start: 0, end: 0 } }
    })
    const outputs = [this.fresh('Concat')]
    const whole = { ...plain, op: 'Concat', inputs: [...none.map((n) => n.outputs[0]), shape], outputs }
    return [...none, { ...whole, attributes: { axis: 0 } }, { ...node, inputs: [x, outputs[0]] }]
  }

  /** A constant of many numbers: not looked for among the others. */
  table(type: ElementType, shape: readonly number[], data: Uint8Array): string {
    const name = this.fresh('table')
    this.constants.set(name, { type, shape, data })
    return name
  }

  private constant(type: ElementType, shape: readonly number[], data: Uint8Array): string {
    return this.once(`${type} ${shape} ${data}`, () => {
      const name = this.fresh('constant')
      this.constants.set(name, { type, shape, data })
      return name
    })
  }

  private fresh(op: string): string {
    return `${op}_${this.named++}`
  }
}

/** With the versions of the format and of its operators. */
function modelWriter(): BinaryWriter {
  const w = new BinaryWriter()
  w.tag(1, WireType.Varint).int64(10)
  for (const [domain, version] of [
    ['', 21],
    ['com.microsoft', 1],
  ] as const)
    message(w, 8, () => w.tag(1, WireType.LengthDelimited).string(domain).tag(2, WireType.Varint).int64(version))
  return w
}

function message(w: BinaryWriter, field: number, body: () => void): void {
  w.tag(field, WireType.LengthDelimited).fork()
  body()
  w.join()
}

function writeNode(w: BinaryWriter, { op, domain, inputs, outputs, attributes }: OnnxNode): void {
  for (const name of inputs) w.tag(1, WireType.LengthDelimited).string(name)
  for (const name of outputs) w.tag(2, WireType.LengthDelimited).string(name)
  w.tag(3, WireType.LengthDelimited).string(outputs[0])
  w.tag(4, WireType.LengthDelimited).string(op)
  for (const [name, value] of Object.entries(attributes)) message(w, 5, () => writeAttribute(w, name, value))
  w.tag(7, WireType.LengthDelimited).string(domain)
}

function writeAttribute(w: BinaryWriter, name: string, value: Attribute): void {
  w.tag(1, WireType.LengthDelimited).string(name)
  const type = (number: number) => w.tag(20, WireType.Varint).int32(number)
  if (typeof value === 'number') type(2).tag(3, WireType.Varint).int64(value)
  else if (typeof value === 'string') type(3).tag(4, WireType.LengthDelimited).bytes(new TextEncoder().encode(value))
  else if ('float' in value) type(1).tag(2, WireType.Bit32).float(value.float)
  else {
    type(7)
    for (const number of value) w.tag(8, WireType.Varint).int64(number)
  }
}

function writeTensor(w: BinaryWriter, name: string, type: ElementType, shape: readonly number[]): void {
  for (const length of shape) w.tag(1, WireType.Varint).int64(length)
  w.tag(2, WireType.Varint).int32(elementTypes[type])
  w.tag(8, WireType.LengthDelimited).string(name)
}

function writeValue(w: BinaryWriter, name: string, type: ElementType, shape: Dimensions): void {
  w.tag(1, WireType.LengthDelimited).string(name)
  message(w, 2, () =>
    message(w, 1, () => {
      w.tag(1, WireType.Varint).int32(elementTypes[type])
      message(w, 2, () => {
        for (const length of shape)
          message(w, 1, () => {
            if (typeof length === 'number') w.tag(1, WireType.Varint).int64(length)
            else w.tag(2, WireType.LengthDelimited).string(length)
          })
      })
    }),
  )
}
