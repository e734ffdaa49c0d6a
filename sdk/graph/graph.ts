import { describe, type TensorType } from '../dtype.ts'
import { ShapeError } from '../errors.ts'
import type { Attrs, OpSpec } from './spec.ts'

/** `input` changes between runs, `weight` is read only, `state` is read and written, `temp` lives inside one run. */
export type TensorKind = 'input' | 'weight' | 'state' | 'temp'

export interface Tensor extends TensorType {
  readonly id: number
  readonly kind: TensorKind
  /** Inputs, weights and state are bound by this name; temps carry it for the listing only. */
  readonly name: string
  readonly trainable: boolean
}

export interface Node {
  readonly spec: OpSpec
  readonly inputs: readonly Tensor[]
  readonly outputs: readonly Tensor[]
  readonly attrs: Attrs
  /** Recompute region (one per decoder layer), or null outside. */
  readonly region: string | null
}

/** The gradient of weight `w` is state under this name. */
export const gradientName = (weight: string): string => `grad/${weight}`

/**
 * A model written once, forward only, as calls that append coarse ops.
 *
 * State has versions: an op that writes state returns the next version, and only the newest may be read.
 */
export class Graph {
  readonly nodes: Node[] = []
  readonly tensors: Tensor[] = []
  /** Named results of a run. */
  readonly outputs = new Map<string, Tensor>()
  /** Newest version of each state, by name. */
  readonly newest = new Map<string, Tensor>()
  /** Of regions: products and what stands on one, which are dear to recompute. */
  readonly dear = new Set<Tensor>()
  private readonly bound = new Map<string, Tensor>()
  private currentRegion: string | null = null
  private readonly prefix: string[] = []

  input(name: string, type: TensorType): Tensor {
    return this.bind(name, 'input', type, false)
  }

  weight(name: string, type: TensorType, trainable = false): Tensor {
    return this.bind(name, 'weight', type, trainable)
  }

  /** Read-write buffer; returns its newest version. */
  state(name: string, type: TensorType): Tensor {
    const bound = this.bind(name, 'state', type, false)
    if (!this.newest.has(name)) this.newest.set(name, bound)
    return this.newest.get(name)!
  }

  /** f32 state of the weight's shape that its `...Back` ops add into. */
  gradState(weight: Tensor): Tensor {
    return this.state(gradientName(weight.name), { dtype: 'f32', shape: weight.shape })
  }

  output(name: string, tensor: Tensor): void {
    this.outputs.set(name, tensor)
  }

  /** Appends one node and returns its outputs. */
  apply<A extends Attrs>(spec: OpSpec<A>, inputs: readonly Tensor[], attrs: A, label?: string): Tensor[] {
    const types = spec.infer(inputs, attrs)
    const stateOf = new Map(spec.state?.map(([input, output]) => [output, input]))
    const outputs = types.map((type, i) => {
      const source = stateOf.has(i) ? inputs[stateOf.get(i)!] : undefined
      if (source && this.newest.get(source.name) !== source)
        throw new ShapeError(`${spec.name}: writes an older version of state ${source.name}`)
      const base = [...this.prefix, label ?? spec.name].join('.')
      const tensor = source
        ? this.create(source.name, 'state', type, false)
        : this.create(i === 0 ? base : `${base}#${i}`, 'temp', type, false)
      if (source) this.newest.set(source.name, tensor)
      return tensor
    })
    for (const t of inputs)
      if (t.kind === 'state' && this.newest.get(t.name) !== t && !outputs.some((o) => o.name === t.name))
        throw new ShapeError(`${spec.name}: reads an older version of state ${t.name}`)
    this.nodes.push({ spec: spec as unknown as OpSpec, inputs, outputs, attrs, region: this.currentRegion })
    return outputs
  }

  /** Nodes appended by `body` are recomputed in the reverse pass instead of kept, when the caller asks for it. */
  region<T>(name: string, body: () => T): T {
    if (this.currentRegion !== null) throw new ShapeError(`region ${name} inside region ${this.currentRegion}`)
    this.currentRegion = name
    try {
      return this.scope(name, body)
    } finally {
      this.currentRegion = null
    }
  }

  /** Says that a region's tensor is kept before others where not all fit. */
  keep(tensor: Tensor): Tensor {
    this.dear.add(tensor)
    return tensor
  }

  /** Prefixes the names of temps, for the listing. */
  scope<T>(name: string, body: () => T): T {
    this.prefix.push(name)
    try {
      return body()
    } finally {
      this.prefix.pop()
    }
  }

  private bind(name: string, kind: TensorKind, type: TensorType, trainable: boolean): Tensor {
    const known = this.bound.get(name)
    if (known) {
      if (known.kind !== kind || describe(known) !== describe(type))
        throw new ShapeError(
          `${kind} ${name}: bound as ${known.kind} ${describe(known)}, asked for as ${describe(type)}`,
        )
      return known
    }
    const tensor = this.create(name, kind, type, trainable)
    this.bound.set(name, tensor)
    return tensor
  }

  private create(name: string, kind: TensorKind, { dtype, shape }: TensorType, trainable: boolean): Tensor {
    const tensor: Tensor = { id: this.tensors.length, kind, name, dtype, shape, trainable }
    this.tensors.push(tensor)
    return tensor
  }
}
