import { megabytes } from '../bytes.ts'
import { bucketLengths } from '../data/pack.ts'
import { byteLength, type TensorType } from '../dtype.ts'
import { MemoryError, NumericError, OptionError } from '../errors.ts'
import { Graph, gradientName, type Tensor } from '../graph/graph.ts'
import { bindings, type Program, toProgram } from '../graph/program.ts'
import { type DecoderContext, headWeight, packedHidden } from '../model/decoder.ts'
import type { Model } from '../model/model.ts'
import { Programs } from '../model/programs.ts'
import { adamw, add, fill, gatherRows, gradient, sumSquares } from '../ops/index.ts'
import type { RunInputs } from '../target.ts'
import { turn } from '../turn.ts'
import { keptBytes } from './config.ts'
import { type Objective, pickFrom } from './objectives.ts'

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
  /** Recompute each layer in the reverse pass, but for what fits `keptBytes`, instead of keeping its activations. */
  readonly gradientCheckpointing: boolean
  /** lora_dropout */
  readonly dropout: number
  readonly objective: Objective
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
    const given: Record<string, ArrayBufferView> = { ids, positions, starts, rows, ...inputs }
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

  /** What trains, and its moments: all that outlives a step. */
  *remembers(): Iterable<{ name: string; type: TensorType }> {
    for (const [name, type] of this.parameters) yield { name, type }
    yield* this.moments()
  }

  /** Bytes for a packed length and any of these numbers of scored rows, exact. Allocates nothing. */
  async forecast(tokens: number, ...scoredRows: readonly number[]): Promise<Forecast> {
    const build = async (body: (g: Graph) => unknown): Promise<Program> => {
      // Graphs of many layers take a while.
      await turn()
      const g = new Graph()
      body(g)
      return toProgram(g, 'forecast')
    }
    const update = await build((g) => this.buildApply(g))
    let [weights, activations] = [0, 0]
    for (const rows of scoredRows) {
      const program = await build((g) => this.buildAccumulate(g, tokens, rows))
      weights = sum(bindings(program, 'weight').values())
      await turn()
      activations = Math.max(activations, await this.model.target.scratchBytes([program, update]))
    }
    const optimizer = 3 * sum(this.parameters.values())
    return { weights, optimizer, activations, total: weights + optimizer + activations }
  }

  /** The forecast for at most so many scored rows; throws MemoryError with it when such a step cannot fit. */
  async checkMemory(tokens: number, scoredRows: number): Promise<Forecast> {
    // Now and then fewer scored rows are placed a little worse.
    const f = await this.forecast(tokens, ...bucketLengths(scoredRows / 2, scoredRows))
    const { memoryLimit } = this.model.target.info
    if (f.total <= memoryLimit) return f
    throw new MemoryError(
      `a step of ${tokens} tokens needs ${megabytes(f.total)} (weights ${megabytes(f.weights)}, gradients and moments ${megabytes(f.optimizer)}, activations ${megabytes(f.activations)}), ${this.model.target.name} has ${megabytes(memoryLimit)}: use LoRA, a smaller batch or shorter rows`,
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
    const stored = [...c.weights].find(([, type]) => type.dtype !== 'f32')
    if (stored)
      throw new OptionError(
        `full fine-tuning needs f32 weights, ${stored[0]} is ${stored[1].dtype}: load with dtype 'f32'`,
      )
    return { ...c, trainable: new Set(c.weights.keys()) }
  }

  private buildAccumulate(g: Graph, n: number, r: number): void {
    const { dropout, gradientCheckpointing, objective } = this.options
    const i32 = (name: string, length: number) => g.input(name, { dtype: 'i32', shape: [length] })
    const c = this.context(dropout > 0 ? { p: dropout, seed: i32('seed', 2) } : undefined)
    const hidden = packedHidden(g, c, i32('ids', n), i32('positions', n), i32('starts', n)) // [N, C]
    const [scored, table] = [gatherRows(g, hidden, i32('rows', r)), headWeight(g, c)] // [R, C], [V, C]
    const outputs = objective(g, r, pickFrom(g, scored, table))
    for (const [name, tensor] of Object.entries(outputs)) g.output(name, tensor)
    gradient(g, [[outputs.loss, fill(g, [1], 1)]], {
      recompute: gradientCheckpointing,
      keptBytes: this.keptBytes(c),
    })
  }

  /** No more than half of what the weights and the optimizer leave free. */
  private keptBytes({ weights }: DecoderContext): number {
    const { memoryLimit } = this.model.target.info
    return Math.min(keptBytes, (memoryLimit - sum(weights.values()) - 3 * sum(this.parameters.values())) / 2)
  }

  private buildApply(g: Graph): void {
    const grads = [...this.parameters].map(([name, type]) => g.state(gradientName(name), type))
    const normSquared = grads.map((grad) => sumSquares(g, grad)).reduce((a, b) => add(g, a, b))
    g.output('normSquared', normSquared)
    const hyper = g.input('hyper', { dtype: 'f32', shape: [10] })
    let at = 0
    for (const [name, type] of this.parameters) {
      const [m, v] = momentNames(name).map((moment) => g.state(moment, type))
      adamw(g, g.state(name, type), grads[at++], m, v, normSquared, hyper, { decay: decays(name) ? 1 : 0 })
    }
  }

  /** Every trainable weight that a forward pass binds. */
  private findParameters(): Map<string, TensorType> {
    const g = new Graph()
    const i32 = (name: string) => g.input(name, { dtype: 'i32', shape: [1] })
    const c = this.context()
    packedHidden(g, c, i32('ids'), i32('positions'), i32('starts'))
    headWeight(g, c)
    return new Map(g.tensors.filter((t) => t.trainable).map((t) => [t.name, { dtype: t.dtype, shape: t.shape }]))
  }
}

const sum = (types: Iterable<TensorType>) => [...types].reduce((bytes, type) => bytes + byteLength(type), 0)

/** transformers' rule: biases and norms do not decay. */
const decays = (name: string): boolean => !/bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)/i.test(name)
