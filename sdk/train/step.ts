import { byteLength, type TensorType } from '../dtype.ts'
import { MemoryError, NumericError, OptionError } from '../errors.ts'
import { gradient } from '../graph/gradient.ts'
import { Graph, gradientName, type Tensor } from '../graph/graph.ts'
import { bindings, toProgram } from '../graph/program.ts'
import { type DecoderContext, headWeight, packedHidden } from '../model/decoder.ts'
import type { Model } from '../model/model.ts'
import { Programs } from '../model/programs.ts'
import { adamw, add, fill, gatherRows, ops, sumSquares } from '../ops/index.ts'
import type { RunInputs } from '../target.ts'

/** Hyperparameters of one optimizer step. */
export interface StepHyper {
  readonly learningRate: number
  readonly weightDecay: number
  /** 0: no clipping. */
  readonly maxGradNorm: number
  readonly adamBeta1: number
  readonly adamBeta2: number
  readonly adamEpsilon: number
}

export interface StepOptions {
  /** What trains: the last active adapter, or every base weight. */
  readonly trains: 'adapter' | 'model'
  /** Recompute each layer in the reverse pass instead of keeping its activations. */
  readonly gradientCheckpointing: boolean
  /** lora_dropout */
  readonly dropout: number
  /** Does weight decay apply to this parameter? */
  readonly decays: (name: string) => boolean
  /**
   * The objective: appends the loss of the scored rows to the graph and returns it, with whatever else a run should return.
   * `hidden` is [R, C], `table` [V, C].
   */
  readonly objective: (g: Graph, hidden: Tensor, table: Tensor) => { loss: Tensor; [output: string]: Tensor }
}

/** Token rows of one micro-batch, packed. */
export interface PackedRows {
  readonly ids: Int32Array
  readonly positions: Int32Array
  readonly starts: Int32Array
  readonly rows: Int32Array
}

/** What a step needs, in bytes, before anything is allocated. */
export interface Forecast {
  readonly weights: number
  /** Gradients and both Adam moments. */
  readonly optimizer: number
  /** Activations and what the target's kernels need beside them. */
  readonly activations: number
  readonly total: number
}

const momentNames = (name: string) => [`adam/m/${name}`, `adam/v/${name}`] as const

/**
 * One optimizer step as two Programs: `accumulate` (forward, backward, once a micro-batch; gradients add up in state)
 * and `apply` (global norm, clip, AdamW, zero).
 */
export class TrainStep {
  readonly model: Model
  /** Types of what trains, by buffer name. */
  readonly parameters: ReadonlyMap<string, TensorType>
  private readonly options: StepOptions
  private readonly programs: Programs
  /** Optimizer steps done: Adam's t. */
  steps = 0

  constructor(model: Model, options: StepOptions) {
    this.model = model
    this.options = options
    this.programs = new Programs(model)
    this.parameters = this.findParameters()
    if (this.parameters.size === 0) throw new OptionError('nothing trains: add an adapter, or train the full model')
  }

  /** Forward and backward of one micro-batch. Returns the objective's outputs. */
  async accumulate(
    batch: PackedRows,
    inputs: RunInputs,
    seed: readonly [number, number],
    signal?: AbortSignal,
  ): Promise<Record<string, Float32Array>> {
    const [n, r] = [batch.ids.length, batch.rows.length]
    const executable = await this.programs.get(`accumulate ${n} ${r}`, (g) => this.buildAccumulate(g, n, r))
    const { ids, positions, starts, rows } = batch
    const given: Record<string, RunInputs[string]> = { ids, positions, starts, rows, ...inputs }
    if (this.options.dropout > 0) given.seed = Int32Array.from(seed)
    return (await executable.run(given, { signal })) as Record<string, Float32Array>
  }

  /** Clips, updates, zeroes the gradients. Returns the gradients' global norm before clipping. Throws NumericError, changing nothing, when it is not finite. */
  async apply(hyper: StepHyper): Promise<number> {
    const executable = await this.programs.get('apply', (g) => this.buildApply(g))
    const t = this.steps + 1
    const values = Float32Array.of(
      hyper.learningRate,
      hyper.adamBeta1,
      hyper.adamBeta2,
      hyper.adamEpsilon,
      hyper.weightDecay,
      hyper.maxGradNorm,
      1 - hyper.adamBeta1 ** t,
      1 - hyper.adamBeta2 ** t,
      1 - hyper.adamBeta1,
      1 - hyper.adamBeta2,
    )
    const out = await executable.run({ hyper: values })
    const norm = Math.sqrt((out.normSquared as Float32Array)[0])
    if (!Number.isFinite(norm))
      throw new NumericError(
        `step ${t}: the gradient norm is ${norm}; nothing was updated (lower the learning rate, or look at the last batch)`,
      )
    this.steps = t
    this.model.numbersVersion++
    return norm
  }

  /** Names of the optimizer's state, for a checkpoint. */
  *moments(): Iterable<{ name: string; type: TensorType }> {
    for (const [name, type] of this.parameters) for (const moment of momentNames(name)) yield { name: moment, type }
  }

  /** Bytes for a packed length and a number of scored rows, exact. Allocates nothing. */
  forecast(tokens: number, scoredRows: number): Forecast {
    const [g, update] = [new Graph(), new Graph()]
    this.buildAccumulate(g, tokens, scoredRows)
    this.buildApply(update)
    const sum = (types: Iterable<TensorType>) => [...types].reduce((bytes, type) => bytes + byteLength(type), 0)
    const program = toProgram(g, 'forecast')
    const weights = sum(bindings(program, 'weight').values())
    const optimizer = 3 * sum(this.parameters.values())
    const activations = this.model.target.scratchBytes([program, toProgram(update, 'forecast')])
    return { weights, optimizer, activations, total: weights + optimizer + activations }
  }

  /** The forecast; throws MemoryError with it when a step of this size cannot fit. */
  checkMemory(tokens: number, scoredRows: number): Forecast {
    const f = this.forecast(tokens, scoredRows)
    const { memoryLimit } = this.model.target.info
    if (f.total <= memoryLimit) return f
    const mb = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`
    throw new MemoryError(
      `a step of ${tokens} tokens needs ${mb(f.total)} (weights ${mb(f.weights)}, gradients and moments ${mb(f.optimizer)}, activations ${mb(f.activations)}), ${this.model.target.name} has ${mb(memoryLimit)}: use LoRA, a smaller batch or shorter rows`,
    )
  }

  /** Frees gradients and moments. */
  free(): void {
    this.programs.clear()
    for (const name of this.parameters.keys())
      for (const state of [gradientName(name), ...momentNames(name)]) this.model.release(state)
  }

  private context(dropout?: { p: number; seed: Tensor }): DecoderContext {
    const c = this.model.context()
    if (this.options.trains === 'adapter')
      return {
        ...c,
        adapters: c.adapters.map((a, i) => ({ ...a, trainable: i === c.adapters.length - 1 })),
        ...(dropout && { dropout }),
      }
    const base = [...c.weights].filter(([name]) => !name.startsWith('rope/'))
    const stored = base.find(([, type]) => type.dtype !== 'f32')
    if (stored)
      throw new OptionError(
        `full fine-tuning needs f32 weights, ${stored[0]} is ${stored[1].dtype}: load with dtype 'f32'`,
      )
    return { ...c, trainable: new Set(base.map(([name]) => name)) }
  }

  private buildAccumulate(g: Graph, n: number, r: number): void {
    const { dropout, gradientCheckpointing, objective } = this.options
    const i32 = (name: string, length: number) => g.input(name, { dtype: 'i32', shape: [length] })
    const c = this.context(dropout > 0 ? { p: dropout, seed: i32('seed', 2) } : undefined)
    const hidden = packedHidden(g, c, i32('ids', n), i32('positions', n), i32('starts', n)) // [N, C]
    const outputs = objective(g, gatherRows(g, hidden, i32('rows', r)), headWeight(g, c))
    for (const [name, tensor] of Object.entries(outputs)) g.output(name, tensor)
    gradient(g, { add: ops.add, accumulate: ops.accumulate }, [[outputs.loss, fill(g, [1], 1)]], {
      recompute: gradientCheckpointing,
    })
  }

  private buildApply(g: Graph): void {
    const grads = [...this.parameters].map(([name, type]) => g.state(gradientName(name), type))
    const normSquared = grads.map((grad) => sumSquares(g, grad)).reduce((a, b) => add(g, a, b))
    g.output('normSquared', normSquared)
    const hyper = g.input('hyper', { dtype: 'f32', shape: [10] })
    let at = 0
    for (const [name, type] of this.parameters) {
      const [m, v] = momentNames(name).map((moment) => g.state(moment, type))
      adamw(g, g.state(name, type), grads[at++], m, v, normSquared, hyper, { decay: this.options.decays(name) ? 1 : 0 })
    }
  }

  /** Every trainable weight that a forward pass binds. */
  private findParameters(): Map<string, TensorType> {
    const g = new Graph()
    this.buildForwardOnly(g)
    return new Map(g.tensors.filter((t) => t.trainable).map((t) => [t.name, { dtype: t.dtype, shape: t.shape }]))
  }

  private buildForwardOnly(g: Graph): void {
    const i32 = (name: string) => g.input(name, { dtype: 'i32', shape: [1] })
    const c = this.context()
    packedHidden(g, c, i32('ids'), i32('positions'), i32('starts'))
    headWeight(g, c)
  }
}

/** transformers' rule: biases and norms do not decay. */
export const decaysAsTransformers = (name: string): boolean =>
  !/bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)/i.test(name)
