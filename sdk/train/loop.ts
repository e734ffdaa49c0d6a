import { NumericError, OptionError, RewardError } from '../errors.ts'
import { lockFolder } from '../formats/lock.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import type { TrainingArguments } from './arguments.ts'
import {
  listCheckpoints,
  readState,
  removeCutOff,
  restoreMoments,
  rotateCheckpoints,
  saveCheckpoint,
  type TrainerState,
} from './checkpoint.ts'
import { MetricsFile, type MetricsLine } from './metrics.ts'
import { learningRateAt } from './schedule.ts'
import type { Forecast, TrainStep } from './step.ts'
import { restoreTrained, saveTrained } from './trained.ts'

/** A log line, with where the run stands. */
export type TrainLog = MetricsLine & { readonly totalSteps: number }

/** What a trainer is at where there are no log lines. */
export type TrainProgress =
  | { readonly phase: 'reading'; readonly rows: number }
  /** Before the first step: `tokens` of the largest batch, and the bytes that it needs. */
  | { readonly phase: 'ready'; readonly totalSteps: number; readonly tokens: number; readonly forecast: Forecast }
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

/** What one optimizer step gave before the update. */
export interface StepResult {
  /** `loss` and whatever else the trainer logs, averaged over the steps of a log line. */
  readonly metrics: { readonly loss: number; readonly [metric: string]: number }
  /** Tokens that the model read. */
  readonly tokens: number
  /** Said in the log. */
  readonly warning?: string
}

export interface Run {
  readonly model: LanguageModel
  /** Name of the adapter that trains; null: the full model. */
  readonly trained: string | null
  readonly args: Required<TrainingArguments>
  readonly step: TrainStep
  readonly stepsPerEpoch: number
  readonly totalSteps: number
  /** Everything that decides the numbers: a resumed run must have the same. */
  readonly decisive: Readonly<Record<string, unknown>>
  /** Accumulates the gradients of optimizer step `s` (from 0). */
  readonly accumulate: (s: number) => Promise<StepResult>
  /** Held-out loss or reward; null without held-out rows. */
  readonly evaluate: (() => Promise<{ evalLoss: number } | { evalReward: number }>) | null
  /** What the trainer remembers from one step to the next, for checkpoints. */
  readonly memory?: { save(): unknown; restore(saved: unknown): void }
  /** Whether the newest checkpoint may push out the oldest; default: always. */
  readonly rotates?: () => boolean
  readonly resume: boolean
  readonly signal?: AbortSignal
}

/**
 * Every optimizer step of a run, with its log, evaluations and checkpoints; at the end what was trained is in `outputDir`, where
 * no other run may write meanwhile.
 */
export async function* trainSteps(run: Run): AsyncGenerator<TrainLog, void> {
  const { outputDir } = run.args
  if (outputDir === null) {
    if (run.resume) throw new OptionError('resume: without an outputDir there is nothing to go on from')
    return yield* steps(run, null)
  }
  const release = await lockFolder(outputDir)
  try {
    yield* steps(run, outputDir)
  } finally {
    await release()
  }
}

async function* steps(run: Run, outputDir: string | null): AsyncGenerator<TrainLog, void> {
  const { model, trained, args, step, stepsPerEpoch, totalSteps, evaluate, signal } = run
  const warmupSteps = args.warmupSteps || Math.ceil(args.warmupRatio * totalSteps)
  const metrics = outputDir === null ? null : await MetricsFile.in(outputDir)
  let state: TrainerState = {
    version: 1,
    step: 0,
    tokens: 0,
    pending: [],
    metricsBytes: 0,
    best: null,
    evaluationsSinceBest: 0,
    arguments: run.decisive,
  }
  if (run.resume && outputDir !== null) await removeCutOff(outputDir)
  const there = outputDir === null ? [] : await listCheckpoints(outputDir)
  if (there.length > 0 && !run.resume)
    throw new OptionError(
      `${outputDir} holds the checkpoints of another run: resume it, delete it, or give another outputDir`,
    )
  const checkpoint = there.at(-1)
  if (checkpoint) {
    state = await readState(checkpoint.folder, state.arguments)
    await restoreTrained(model, trained, checkpoint.folder)
    await restoreMoments(checkpoint.folder, step)
    step.steps = state.step
    run.memory?.restore(state.own)
  }
  await metrics?.open(state.metricsBytes)

  let { tokens, best, evaluationsSinceBest } = state
  let pending = [...state.pending]
  let [loggedAt, loggedTokens] = [performance.now(), tokens]
  const save = async (at: number) => {
    if (outputDir === null || metrics === null) return
    const now: TrainerState = {
      ...state,
      step: at,
      tokens,
      pending,
      metricsBytes: metrics.bytes,
      best,
      evaluationsSinceBest,
      ...(run.memory && { own: run.memory.save() }),
    }
    await saveCheckpoint(outputDir, now, step, (folder) => saveTrained(model, trained, folder))
    if (run.rotates?.() !== false)
      await rotateCheckpoints(outputDir, args.saveTotalLimit, args.loadBestModelAtEnd ? (best?.step ?? null) : null)
  }

  for (let s = state.step; s < totalSteps; s++) {
    const result = await run.accumulate(s).catch(async (error) => {
      // A mistake in somebody's reward does not cost what was learned before it.
      if (error instanceof RewardError && s > state.step) await save(s)
      throw error
    })
    if (!Number.isFinite(result.metrics.loss))
      throw new NumericError(
        `step ${s + 1}: the loss is ${result.metrics.loss}; ${outputDir === null ? '' : `the last checkpoint in ${outputDir} is whole `}(lower the learning rate)`,
      )
    tokens += result.tokens
    pending.push(result.metrics)
    const learningRate = learningRateAt(args.lrSchedulerType, args.learningRate, s, warmupSteps, totalSteps)
    const gradNorm = await step.apply({ ...args, learningRate })

    const done = s + 1
    const last = done === totalSteps
    const endsEpoch = done % stepsPerEpoch === 0
    if (done % args.loggingSteps === 0 || last) {
      const seconds = (performance.now() - loggedAt) / 1000
      const line: MetricsLine = {
        step: done,
        epoch: done / stepsPerEpoch,
        ...means(pending),
        gradNorm,
        learningRate,
        tokens,
        tokensPerSecond: (tokens - loggedTokens) / seconds,
      }
      pending = []
      ;[loggedAt, loggedTokens] = [performance.now(), tokens]
      await metrics?.append(line)
      yield { ...line, totalSteps }
    }
    if (result.warning !== undefined) {
      const line: MetricsLine = { step: done, warning: result.warning }
      await metrics?.append(line)
      yield { ...line, totalSteps }
    }
    let stop = false
    if (evaluate && due(args.evalStrategy, args.evalSteps, done, endsEpoch, last)) {
      const held = await evaluate()
      const line: MetricsLine = { step: done, ...held }
      await metrics?.append(line)
      evaluationsSinceBest++
      const better = (value: number, than: number) => ('evalLoss' in held ? value < than : value > than)
      const value = 'evalLoss' in held ? held.evalLoss : held.evalReward
      if (best === null || better(value, best.value)) [best, evaluationsSinceBest] = [{ step: done, value }, 0]
      stop = args.earlyStoppingPatience !== null && evaluationsSinceBest >= args.earlyStoppingPatience
      yield { ...line, totalSteps }
      loggedAt = performance.now()
    }
    const isBest = args.loadBestModelAtEnd && best?.step === done
    if (args.saveStrategy !== 'no' && (due(args.saveStrategy, args.saveSteps, done, endsEpoch, last) || isBest || stop))
      await save(done)
    if (stop) break
    signal?.throwIfAborted()
  }
  if (args.loadBestModelAtEnd && best && outputDir !== null)
    await restoreTrained(model, trained, `${outputDir}/checkpoint-${best.step}`)
  await model.model.pullAdapters()
  if (outputDir !== null) await saveTrained(model, trained, outputDir)
}

/** The mean of each metric. */
function means(all: readonly StepResult['metrics'][]): StepResult['metrics'] {
  const mean = (key: string) => all.reduce((sum, metrics) => sum + metrics[key], 0) / all.length
  const rest = Object.keys(all[0]).filter((key) => key !== 'loss')
  return { loss: mean('loss'), ...Object.fromEntries(rest.map((key) => [key, mean(key)])) }
}

const due = (
  strategy: 'no' | 'steps' | 'epoch',
  every: number,
  step: number,
  endsEpoch: boolean,
  last: boolean,
): boolean => strategy !== 'no' && (last || (strategy === 'epoch' ? endsEpoch : step % every === 0))
