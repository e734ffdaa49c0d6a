import type { TensorType } from '../dtype.ts'
import { DeviceLostError, FormatError, NumericError, OptionError } from '../errors.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import { patience } from '../model/lost.ts'
import { Programs } from '../model/programs.ts'
import { below, lockStore, type Source, type Store, storeAt, writeFiles } from '../store/store.ts'
import type { RunInputs } from '../target.ts'
import type { z } from '../zod.ts'
import { decisive, type TrainerOptions } from './arguments.ts'
import {
  listCheckpoints,
  readState,
  removeCutOff,
  restoreMoments,
  rotateCheckpoints,
  saveCheckpoint,
  type TrainerState,
} from './checkpoint.ts'
import type { TrainingSettings } from './config.ts'
import { MetricsFile, type MetricsLine } from './metrics.ts'
import type { Objective } from './objectives.ts'
import { learningRateAt } from './schedule.ts'
import { type Forecast, type PackedRows, TrainStep } from './step.ts'
import { checkTrained, prepareAdapter, rememberAdapters, restoreTrained, trainedFiles } from './trained.ts'

/** A log line, with where the run stands. */
export type TrainLog = MetricsLine & { readonly totalSteps: number }

/** What a training takes, before its first step. */
export interface TrainPlan {
  readonly totalSteps: number
  /** Of the largest batch, padded. */
  readonly tokens: number
  /** Bytes of a step with that batch. */
  readonly forecast: Forecast
}

/** What a trainer is at where there are no log lines. */
export type TrainProgress =
  | { readonly phase: 'reading'; readonly rows: number }
  /** Before the first step. */
  | ({ readonly phase: 'ready' } & TrainPlan)
  /** Completions that ended, of those being drawn, and their tokens. */
  | { readonly phase: 'rollouts'; readonly done: number; readonly total: number; readonly tokens: number }
  | { readonly phase: 'evaluating'; readonly rows: number; readonly totalRows: number }

/** What `train` takes. */
export interface TrainOptions {
  /** Go on from the newest checkpoint in `outputDir`, or start where there is none. */
  readonly resume?: boolean
  /** Looked at between the nodes of a step; the iteration throws the signal's reason. */
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: TrainProgress) => void
}

/** What a trainer decides before the first step. */
export interface Setup<Memory> {
  readonly objective: Objective
  readonly stepsPerEpoch: number
  /** The largest micro-batch that can come up, in padded tokens and scored rows. */
  readonly largest: { readonly tokens: number; readonly scored: number }
  /** What decides the numbers beside the arguments and the adapter: a resumed run must have the same. */
  readonly decisive: Readonly<Record<string, unknown>>
  /** What the trainer itself remembers from one step to the next: at the start, and as a checkpoint must have it. */
  readonly memory?: { readonly start: Memory; readonly schema: z.ZodType<Memory> }
}

/** `loss` and whatever else a trainer logs of a step, averaged over the steps of a log line. */
export interface StepMetrics {
  readonly loss: number
  readonly [metric: string]: number
}

/** What a run is at between two steps, beside what trains. */
interface Progress {
  readonly step: number
  readonly tokens: number
  /** Metrics of the steps since the last line of the log. */
  readonly pending: readonly StepMetrics[]
  /** The trainer's memory. */
  readonly own?: unknown
}

/** A copy in memory to go on from when the device is lost: what trains, and its Adam moments, by buffer. */
interface Copy extends Progress {
  readonly numbers: readonly { readonly name: string; readonly type: TensorType; readonly data: ArrayBuffer }[]
  readonly madeAt: number
  readonly took: number
}

/** A copy is made anew once so many times its own duration has passed since the last one. */
const timesACopy = 20

/**
 * A training in progress: it knows the files, the clock, what is resumed, the signal, and how to go on when the device is lost. What
 * a step does is the trainer's loop over `steps`.
 */
export class Run<Memory = undefined> {
  readonly model: LanguageModel
  readonly args: TrainingSettings
  readonly at: TrainOptions
  /** Name of the adapter that trains; null: the full model. */
  readonly trained: string | null
  /** For scoring with the model; dropped at the end. */
  readonly programs: Programs
  /** The trainer's memory: replaced as a whole, never changed. */
  memory: Memory
  private readonly setup: Setup<Memory>
  private readonly totalSteps: number
  private readonly step: TrainStep
  private readonly decisive: Readonly<Record<string, unknown>>
  private readonly restoreAdapters: () => Promise<void>
  private output: Store | null = null
  private metrics: MetricsFile | null = null
  private tokens = 0
  private pending: readonly StepMetrics[] = []
  private best: TrainerState['best'] = null
  private evaluationsSinceBest = 0
  // Steps up to which it was told, evaluated and saved: not again after a device was lost.
  private told = 0
  private evaluated = 0
  private saved = 0
  private stopsAt: number
  private logged = { at: 0, tokens: 0 }
  private copy: Copy | null = null

  private constructor(
    model: LanguageModel,
    args: TrainingSettings,
    at: TrainOptions,
    setup: Setup<Memory>,
    trained: string | null,
    restoreAdapters: () => Promise<void>,
  ) {
    const adapter = trained === null ? null : model.model.adapters.get(trained)!.config
    this.model = model
    this.args = args
    this.at = at
    this.setup = setup
    this.trained = trained
    this.restoreAdapters = restoreAdapters
    this.memory = setup.memory?.start as Memory
    this.decisive = { ...decisive(args), peft: adapter, ...setup.decisive }
    this.totalSteps = args.maxSteps > 0 ? args.maxSteps : Math.ceil(setup.stepsPerEpoch * args.numTrainEpochs)
    this.stopsAt = this.totalSteps
    this.programs = new Programs(model.model)
    this.step = new TrainStep(model.model, {
      trains: trained === null ? 'model' : 'adapter',
      gradientCheckpointing: args.gradientCheckpointing,
      dropout: adapter?.loraDropout ?? 0,
      objective: setup.objective,
    })
  }

  /** With what trains made ready. End it with `train` or `leave`. */
  static async open<Memory = undefined>(
    { model, peft }: Pick<TrainerOptions<unknown>, 'model' | 'peft'>,
    args: TrainingSettings,
    at: TrainOptions,
    setup: Setup<Memory>,
  ): Promise<Run<Memory>> {
    const restore = await rememberAdapters(model)
    try {
      return new Run(model, args, at, setup, await prepareAdapter(model, peft, args.seed), restore)
    } catch (error) {
      await restore()
      throw error
    }
  }

  /** What is to come. Throws MemoryError where the largest step does not fit. */
  async plan(): Promise<TrainPlan> {
    const { tokens, scored } = this.setup.largest
    return { totalSteps: this.totalSteps, tokens, forecast: await this.step.checkMemory(tokens, scored) }
  }

  /** Leaves the model as it was before. */
  async leave(): Promise<void> {
    this.free()
    await this.restoreAdapters()
  }

  /**
   * Runs the trainer's loop to its end; when the device is lost the loop begins anew where the last copy of the run was made. At the
   * end what was trained is in `outputDir`, where no other run may write meanwhile.
   */
  async *train(loop: () => AsyncGenerator<TrainLog, void>): AsyncGenerator<TrainLog, void> {
    const { outputDir } = this.args
    let release = async () => {}
    try {
      const plan = await this.plan()
      this.at.onProgress?.({ phase: 'ready', ...plan })
      if (outputDir === null && this.at.resume)
        throw new OptionError('resume: without an outputDir there is nothing to go on from')
      if (outputDir !== null) {
        this.output = await storeAt(outputDir)
        release = await lockStore(this.output)
        await this.openOutput(this.output)
      }
      this.logged = { at: performance.now(), tokens: this.tokens }
      yield* this.survivingLosses(loop)
    } catch (error) {
      if (!this.model.isClosed) await this.restoreAdapters()
      throw error
    } finally {
      this.free()
      await release()
    }
  }

  /** The steps that are left, from 0. */
  async *steps(): AsyncGenerator<number, void> {
    await this.makeCopy()
    while (this.step.steps < this.stopsAt) {
      yield this.step.steps
      this.at.signal?.throwIfAborted()
      await this.makeCopy()
    }
  }

  /** Whether this step comes for the first time, and not again since a device was lost. */
  get isNew(): boolean {
    return this.step.steps >= this.told
  }

  /** Adds up the gradients of one of the step's micro-batches. Returns the objective's outputs. */
  accumulate(micro: number, batch: PackedRows, inputs: RunInputs): Promise<Record<string, Float32Array>> {
    const { seed, gradientAccumulationSteps } = this.args
    const counter = this.step.steps * gradientAccumulationSteps + micro
    return this.step.accumulate(batch, inputs, [seed, counter], this.at.signal)
  }

  /** Ends a step: updates what trains, and logs it. `tokens` are those that the model read. Throws NumericError. */
  async *update(metrics: StepMetrics, tokens: number, warning?: string): AsyncGenerator<TrainLog, void> {
    const { args, step, totalSteps } = this
    const { lrSchedulerType, warmupRatio } = args
    if (!Number.isFinite(metrics.loss))
      throw new NumericError(
        `step ${step.steps + 1}: the loss is ${metrics.loss}; ${this.output ? `the last checkpoint in ${this.output.name} is whole ` : ''}(lower the learning rate)`,
      )
    const warmupSteps = args.warmupSteps || Math.ceil(warmupRatio * totalSteps)
    const learningRate = learningRateAt(lrSchedulerType, args.learningRate, step.steps, warmupSteps, totalSteps)
    const gradNorm = await step.apply({ ...args, learningRate })
    this.tokens += tokens
    this.pending = [...this.pending, metrics]
    const done = step.steps
    const isTold = done <= this.told
    if (done % args.loggingSteps === 0 || done === totalSteps) {
      const now = performance.now()
      const line = {
        step: done,
        epoch: done / this.setup.stepsPerEpoch,
        ...means(this.pending),
        gradNorm,
        learningRate,
        tokens: this.tokens,
        tokensPerSecond: (this.tokens - this.logged.tokens) / ((now - this.logged.at) / 1000),
      }
      this.pending = []
      if (!isTold) {
        this.logged = { at: now, tokens: this.tokens }
        yield* this.log(line)
      }
    }
    if (warning !== undefined && !isTold) yield* this.log({ step: done, warning })
    this.told = Math.max(this.told, done)
  }

  /** After an update, where evalStrategy says so: the held-out loss or reward, logged. The best and the last are remembered. */
  async *evaluate(score: () => Promise<{ evalLoss: number } | { evalReward: number }>): AsyncGenerator<TrainLog, void> {
    const { evalStrategy, evalSteps, earlyStoppingPatience } = this.args
    const done = this.step.steps
    if (done <= this.evaluated || !this.isDue(evalStrategy, evalSteps)) return
    const held = await score()
    this.evaluated = done
    const { best } = this
    const [value, isBetter] =
      'evalLoss' in held
        ? [held.evalLoss, best === null || held.evalLoss < best.value]
        : [held.evalReward, best === null || held.evalReward > best.value]
    this.evaluationsSinceBest++
    if (isBetter) [this.best, this.evaluationsSinceBest] = [{ step: done, value }, 0]
    if (earlyStoppingPatience !== null && this.evaluationsSinceBest >= earlyStoppingPatience) this.stopsAt = done
    yield* this.log({ step: done, ...held })
    this.logged = { ...this.logged, at: performance.now() }
  }

  /** Ends a step: writes a checkpoint where saveStrategy says so, and of the best and the last step. */
  async checkpoint(rotates = true): Promise<void> {
    const { saveStrategy, saveSteps, loadBestModelAtEnd } = this.args
    const isBest = loadBestModelAtEnd && this.best?.step === this.step.steps
    const isDue = this.isDue(saveStrategy, saveSteps) || isBest || this.step.steps === this.stopsAt
    if (saveStrategy !== 'no' && isDue) await this.save(rotates)
  }

  /** Writes a checkpoint unless this step has one. `rotates`: it may push out the oldest. */
  async save(rotates = true): Promise<void> {
    const { saveTotalLimit, loadBestModelAtEnd } = this.args
    const { output, metrics, best, evaluationsSinceBest } = this
    if (!output || !metrics || this.step.steps <= this.saved) return
    const state: TrainerState = {
      version: 1,
      ...this.progress(),
      metricsBytes: metrics.bytes,
      best,
      evaluationsSinceBest,
      arguments: this.decisive,
    }
    await saveCheckpoint(output, state, this.step, await trainedFiles(this.model, this.trained))
    if (rotates) await rotateCheckpoints(output, saveTotalLimit, loadBestModelAtEnd ? (best?.step ?? null) : null)
    this.saved = this.step.steps
  }

  private async *log(line: MetricsLine): AsyncGenerator<TrainLog, void> {
    await this.metrics?.append(line)
    yield { ...line, totalSteps: this.totalSteps }
  }

  private isDue(strategy: 'no' | 'steps' | 'epoch', every: number): boolean {
    const done = this.step.steps
    const isEnd = strategy === 'epoch' ? done % this.setup.stepsPerEpoch === 0 : done % every === 0
    return strategy !== 'no' && (done === this.totalSteps || isEnd)
  }

  /** Makes the place ready, and goes on from its newest checkpoint where the run is resumed. */
  private async openOutput(output: Store): Promise<void> {
    if (this.at.resume) await removeCutOff(output)
    const newest = (await listCheckpoints(output)).at(-1)
    if (newest && !this.at.resume)
      throw new OptionError(
        `${output.name} holds the checkpoints of another run: resume it, delete it, or give another outputDir`,
      )
    const state = newest && (await this.load(newest.folder))
    if (state) {
      this.best = state.best
      this.evaluationsSinceBest = state.evaluationsSinceBest
      this.told = this.evaluated = this.saved = state.step
    }
    this.metrics = new MetricsFile(output)
    await this.metrics.open(state?.metricsBytes ?? 0)
  }

  private async load(folder: Source): Promise<TrainerState> {
    const state = await readState(folder, this.decisive)
    const memory = this.setup.memory?.schema.safeParse(state.own)
    if (memory && !memory.success) {
      const [{ path, message }] = memory.error.issues
      throw new FormatError(
        `${folder.name}: own.${path.join('.')}: ${message} (delete the checkpoint to resume from an older one)`,
      )
    }
    await restoreTrained(this.model, this.trained, folder)
    await restoreMoments(folder, this.step)
    this.goOnFrom(state)
    return state
  }

  private progress(): Progress {
    const { tokens, pending, memory } = this
    return { step: this.step.steps, tokens, pending, ...(memory !== undefined && { own: memory }) }
  }

  private goOnFrom({ step, tokens, pending, own }: Progress): void {
    this.step.steps = step
    this.tokens = tokens
    this.pending = pending
    this.memory = own as Memory
  }

  private async makeCopy(): Promise<void> {
    const { model } = this.model
    if (model.again === null || this.trained === null) return
    const start = performance.now()
    if (this.copy && start - this.copy.madeAt < timesACopy * this.copy.took) return
    const numbers = []
    for (const { name, type } of this.step.remembers())
      numbers.push({ name, type, data: await model.target.read(model.buffer(name, type)) })
    const madeAt = performance.now()
    this.copy = { ...this.progress(), numbers, madeAt, took: madeAt - start }
  }

  private async *survivingLosses(loop: () => AsyncGenerator<TrainLog, void>): AsyncGenerator<TrainLog, void> {
    let [losses, furthest] = [0, -1]
    this.model.model.isTraining = true
    try {
      for (;;)
        try {
          yield* loop()
          return await this.finish()
        } catch (error) {
          if (!(error instanceof DeviceLostError)) throw error
          losses = this.step.steps > furthest ? 1 : losses + 1
          furthest = Math.max(furthest, this.step.steps)
          if (losses > patience) throw error
          await this.goOnElsewhere(error)
        }
    } finally {
      this.model.model.isTraining = false
    }
  }

  /** On another device: from the copy, or with all parameters trained from the last checkpoint. */
  private async goOnElsewhere(error: DeviceLostError): Promise<void> {
    const { model } = this.model
    const lost = model.target
    if (this.trained === null) {
      const last = this.output ? (await listCheckpoints(this.output)).at(-1) : undefined
      if (!last)
        throw new DeviceLostError(
          `${error.message}; the weights that were trained are lost with it, and there is no checkpoint to go on from (save some: outputDir, saveSteps)`,
          { cause: error },
        )
      await model.recover(error, lost)
      await this.load(last.folder)
      return
    }
    if (!this.copy) throw error
    await model.recover(error, lost)
    for (const { name, type, data } of this.copy.numbers)
      await model.target.write(model.buffer(name, type), new Uint8Array(data))
    model.numbersVersion++
    this.goOnFrom(this.copy)
  }

  private async finish(): Promise<void> {
    const { output, best } = this
    if (this.args.loadBestModelAtEnd && best && output)
      await restoreTrained(this.model, this.trained, below(output, `checkpoint-${best.step}`))
    await this.model.model.pullAdapters()
    if (this.step.steps > 0) checkTrained(this.model, this.trained)
    if (output) await writeFiles(output, await trainedFiles(this.model, this.trained))
  }

  private free(): void {
    this.programs.clear()
    this.step.free()
  }
}

/** The mean of each metric over the steps that have it. */
function means(all: readonly StepMetrics[]): StepMetrics {
  const mean = (key: string) => {
    const known = all.filter((metrics) => metrics[key] !== undefined)
    return known.reduce((sum, metrics) => sum + metrics[key], 0) / known.length
  }
  const rest = new Set(all.flatMap(Object.keys).filter((key) => key !== 'loss'))
  return { loss: mean('loss'), ...Object.fromEntries([...rest].map((key) => [key, mean(key)])) }
}
