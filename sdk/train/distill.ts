import { datasetHash } from '../data/dataset-hash.ts'
import { packBatch, scoredTokens } from '../data/pack.ts'
import type { RowSource } from '../data/rows.ts'
import { TeacherCache, type TeacherRow, type TeacherSettings } from '../data/teacher-cache.ts'
import type { Example } from '../data/tokenize.ts'
import { DataError, OptionError } from '../errors.ts'
import type { Folder } from '../formats/folder.ts'
import { generateBatch } from '../generate/batch.ts'
import { LanguageModel } from '../generate/language-model.ts'
import { meanLoss } from '../generate/score.ts'
import { modelTeacher, type Teacher } from '../generate/teacher.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import type { LoraConfig } from '../model/adapter.ts'
import { Programs } from '../model/programs.ts'
import { add, fill, mul, scale, sum, view, vocabPick } from '../ops/index.ts'
import { randomBits, uniform } from '../random.ts'
import {
  check,
  checkTrainerOptions,
  checkTrainingArguments,
  decisive,
  defaultLearningRate,
  type TrainingArguments,
  trainingDefaults,
} from './arguments.ts'
import { type TrainLog, type TrainOptions, trainSteps } from './loop.ts'
import { distillLoss } from './objectives.ts'
import {
  checkRowArguments,
  largestBatch,
  type RowArguments,
  type RowSettings,
  readExamples,
  rowArguments,
  rowDefaults,
  stepBatches,
  stepsPerEpoch,
  unitsOf,
} from './rows.ts'
import { decaysAsTransformers, type Forecast, TrainStep } from './step.ts'
import { prepareAdapter, rememberAdapters } from './trained.ts'

/** TRL's GKDConfig in camelCase, but for the defaults of beta (0, not 0.5) and lmbda (0, not 0.5), which suit a cached teacher. */
export interface DistillConfig extends TrainingArguments, RowArguments {
  /** 0: KL(teacher‖student), 1: KL(student‖teacher), between: generalized Jensen-Shannon (arXiv 2306.13649). Default 0. */
  readonly beta?: number
  /** Share of the cross-entropy with the row's own tokens, 0 to 1. Default 0. */
  readonly alpha?: number
  /** Of both distributions; the loss is multiplied by T². Default: the cache's. */
  readonly temperature?: number
  /** Share of the steps on which the student answers the prompts itself and the live teacher judges that (on-policy). Default 0. */
  readonly lmbda?: number
  /** On-policy: tokens of an answer at most. Default 128. */
  readonly maxNewTokens?: number
  /** On-policy: of the student's sampling. Default 0.9, as in TRL. */
  readonly samplingTemperature?: number
  /** Ids a token that are asked of a live teacher, 1 to 64. Default 16. */
  readonly topK?: number
}

const distillDefaults = { beta: 0, alpha: 0, lmbda: 0, maxNewTokens: 128, samplingTemperature: 0.9, topK: 16 } as const

type Settings = Required<TrainingArguments> & RowSettings & Required<Omit<DistillConfig, keyof RowArguments>>

export interface DistillOptions {
  /** The student. */
  readonly model: LanguageModel
  /** A cache's folder (`halfling teacher build`), by its path or as `fileFolder` gives it, or a teacher that is loaded beside the student. */
  readonly teacher: string | Folder | LanguageModel
  /** The rows that the teacher was asked about. */
  readonly trainDataset: RowSource
  readonly evalDataset?: RowSource
  /** LoRA; `null` trains the full model; left out, training goes on from the active adapter, or makes one with the defaults. */
  readonly peft?: Partial<LoraConfig> | null
  readonly args: DistillConfig
  /** Told once of everything worth knowing about the data. */
  readonly onWarning?: (message: string) => void
}

/**
 * Distillation: the divergence from the teacher's distribution (its likeliest ids and the rest as one) at every scored token,
 * averaged over all scored tokens of an optimizer step, and mixed with cross-entropy where alpha says so.
 *
 *     for await (const log of new DistillTrainer({ model, teacher: 'cache', trainDataset: 'rows.jsonl', args: { outputDir: 'out' } }).train()) ...
 */
export class DistillTrainer {
  readonly model: LanguageModel
  readonly args: Settings
  /** Memory of the largest step, known before the first one. */
  forecast: Forecast | null = null
  private readonly options: DistillOptions

  constructor(options: DistillOptions) {
    checkTrainerOptions(options, ['teacher'], [...rowArguments, ...Object.keys(distillDefaults), 'temperature'])
    this.options = options
    this.model = options.model
    this.args = settingsOf(options.args, options.peft === null)
    checkTrainingArguments(this.args, options.evalDataset !== undefined)
    checkRowArguments(this.args)
    checkDistillArguments(this.args, options)
  }

  /**
   * Trains to the end, yielding a log line every `loggingSteps` and at each evaluation. The trained adapter stays active on the
   * model and is written to `outputDir`.
   *
   * @throws DataError, OptionError, MemoryError before the first step (also for a cache of other rows, another tokenizer or
   *   temperature); NumericError when a loss is not finite
   */
  async *train({ resume = false, signal, onProgress }: TrainOptions = {}): AsyncGenerator<TrainLog, void> {
    const { args, model, options } = this
    const onRow = (rows: number) => {
      signal?.throwIfAborted()
      onProgress?.({ phase: 'reading', rows })
    }
    const examples = await readExamples(model, options.trainDataset, args, options.onWarning, onRow)
    const evalExamples = options.evalDataset
      ? await readExamples(model, options.evalDataset, args, options.onWarning, onRow)
      : null
    const units = unitsOf(examples, args)
    const epoch = stepsPerEpoch(units, args)
    const totalSteps = args.maxSteps > 0 ? args.maxSteps : Math.ceil(epoch * args.numTrainEpochs)
    const judge = await openJudge(options, args, examples)

    const putBack = await rememberAdapters(model)
    const trained = await prepareAdapter(model, options.peft, args.seed)
    const adapter = trained === null ? null : model.model.adapters.get(trained)!.config
    const { temperature } = judge
    const step = new TrainStep(model.model, {
      trains: trained === null ? 'model' : 'adapter',
      gradientCheckpointing: args.gradientCheckpointing,
      dropout: adapter?.loraDropout ?? 0,
      decays: decaysAsTransformers,
      objective: (g, hidden, table) => distillation(g, hidden, table, judge.width, temperature, args),
    })
    const evalPrograms = new Programs(model.model)
    try {
      const largest = largestBatch(units, args.perDeviceTrainBatchSize)
      this.forecast = step.checkMemory(largest.tokens, largest.scored)
      onProgress?.({ phase: 'ready', totalSteps, tokens: largest.tokens, forecast: this.forecast })
      yield* trainSteps({
        model,
        trained,
        args,
        step,
        stepsPerEpoch: epoch,
        totalSteps,
        decisive: {
          ...decisive(args),
          temperature,
          teacher: judge.identity,
          peft: adapter,
          rows: units.length,
          dataset: datasetHash(units.flat()),
        },
        accumulate: async (s) => {
          const own = uniform(args.seed, onPolicyStream, s) < args.lmbda
          const batches: (readonly Example[])[] = []
          for (const batch of stepBatches(units, s, args))
            batches.push(own ? await this.ownAnswers(batch, randomBits(args.seed, s, batches.length), signal) : batch)
          const scored = batches.flat().reduce((n, e) => n + scoredTokens(e), 0)
          let loss = 0
          for (const [micro, batch] of batches.entries()) {
            const seed = [args.seed, s * args.gradientAccumulationSteps + micro] as const
            const said = own ? await judge.live!(batch, signal) : await judge.ask(batch, signal)
            loss += await this.microBatch(step, batch, said, judge, 1 / scored, seed, signal)
          }
          return { metrics: { loss }, tokens: batches.flat().reduce((n, e) => n + e.inputIds.length, 0) }
        },
        evaluate:
          evalExamples &&
          (async () => ({
            evalLoss: await meanLoss(model.model, evalExamples, {
              signal,
              programs: evalPrograms,
              onProgress: (rows) => onProgress?.({ phase: 'evaluating', rows, totalRows: evalExamples.length }),
            }),
          })),
        resume,
        signal,
      })
    } catch (error) {
      if (!model.isClosed) await putBack()
      throw error
    } finally {
      evalPrograms.clear()
      step.free()
      await judge.close()
    }
  }

  private async microBatch(
    step: TrainStep,
    examples: readonly Example[],
    said: readonly TeacherRow[],
    { width, temperature }: Judge,
    weight: number,
    seed: readonly [number, number],
    signal?: AbortSignal,
  ): Promise<number> {
    const { alpha } = this.args
    const batch = packBatch(examples)
    const weights = Float32Array.from(batch.rows, (row) => (row < 0 ? 0 : weight))
    const inputs = {
      weights,
      temperature: Float32Array.of(temperature),
      ...picksOf(batch.targets, said, width, alpha > 0),
      ...(alpha > 0 && temperature !== 1 && { targets: batch.targets }),
    }
    const out = await step.accumulate(batch, inputs, seed, signal)
    return out.loss[0]
  }

  /** The prompts of these rows with the student's own answers, which are scored. */
  private async ownAnswers(examples: readonly Example[], seed: number, signal?: AbortSignal): Promise<Example[]> {
    const { maxNewTokens, maxLength, samplingTemperature } = this.args
    const prompts = examples.map(({ inputIds, labels }) => {
      const first = labels.findIndex((label, t) => t > 0 && label >= 0)
      return inputIds.slice(0, Math.min(first, maxLength - 1))
    })
    const answers: Example[] = new Array(examples.length)
    const sampling = { maxNewTokens, temperature: samplingTemperature, topK: 0, topP: 1, seed, signal }
    for await (const { index, tokenIds } of generateBatch(this.model, prompts, sampling)) {
      const answer = tokenIds.slice(0, maxLength - prompts[index].length)
      answers[index] = {
        inputIds: [...prompts[index], ...answer],
        labels: [...prompts[index].map(() => -100), ...answer],
        row: examples[index].row,
      }
    }
    return answers
  }
}

/** Whoever says what the tokens should have been. */
interface Judge {
  /** Ids a token at most. */
  readonly width: number
  readonly temperature: number
  /** What a resumed run must have had as well. */
  readonly identity: Readonly<Record<string, unknown>>
  readonly ask: Teacher
  /** For what the student says itself. */
  readonly live: Teacher | null
  close(): Promise<void>
}

async function openJudge(
  { model, teacher, peft: _ }: DistillOptions,
  args: Settings,
  examples: readonly Example[],
): Promise<Judge> {
  if (teacher instanceof LanguageModel) {
    checkSameTokenizer(teacher.tokenizer.fingerprint, model, 'the teacher')
    const { temperature = 1, topK } = args
    const programs = new Programs(teacher.model)
    const live = modelTeacher(teacher.model, { method: 'topk', k: topK, temperature, seed: 0 }, programs)
    return {
      width: topK,
      temperature,
      identity: { live: true, topK },
      // The student's table may be narrower than the teacher's: padding of one family differs.
      ask: async (rows, signal) => withinVocabulary(await live(rows, signal), model.model.config.vocabSize),
      live: async (rows, signal) => withinVocabulary(await live(rows, signal), model.model.config.vocabSize),
      close: async () => programs.clear(),
    }
  }
  const cache = await TeacherCache.open(teacher)
  const { settings } = cache
  checkCache(cache, model, args, examples)
  const indexOf = new Map(examples.map((example, i) => [example, i]))
  return {
    width: settings.k,
    temperature: settings.temperature,
    identity: identityOf(settings),
    ask: async (rows) =>
      withinVocabulary(
        await Promise.all(rows.map((row) => cache.row(indexOf.get(row)!))),
        model.model.config.vocabSize,
      ),
    live: null,
    close: () => cache.close(),
  }
}

const identityOf = ({ method, k, model, dataset, seed }: TeacherSettings) => ({ method, k, model, dataset, seed })

function checkSameTokenizer(fingerprint: string, { tokenizer }: LanguageModel, whose: string): void {
  if (fingerprint !== tokenizer.fingerprint)
    throw new OptionError(
      `${whose} has another tokenizer than the student (${fingerprint}, not ${tokenizer.fingerprint}): distillation compares token by token, both must be of one family`,
    )
}

function checkCache(cache: TeacherCache, model: LanguageModel, args: Settings, examples: readonly Example[]): void {
  const { folder, settings } = cache
  checkSameTokenizer(settings.tokenizer, model, folder)
  if (args.temperature !== undefined && args.temperature !== settings.temperature)
    throw new OptionError(
      `temperature: ${args.temperature}, but ${folder} was built at ${settings.temperature}, and the likeliest ids alone cannot be brought to another: build the cache at ${args.temperature}`,
    )
  if (settings.method === 'sampled' && args.beta !== 0)
    throw new OptionError(
      `beta: ${args.beta}, but sampled ids (${folder}) give an unbiased forward KL only: use beta 0, or a topk cache`,
    )
  const dataset = datasetHash(examples)
  if (settings.rows !== examples.length || settings.dataset !== dataset)
    throw new DataError(
      `${folder}: was built for ${settings.rows} rows with hash ${settings.dataset}, these are ${examples.length} with ${dataset}: use the same file, chat template, maxLength and masking as \`halfling teacher build\``,
    )
}

/** Ids past the student's table become padding, and their mass part of the rest. */
function withinVocabulary(rows: readonly TeacherRow[], vocabSize: number): TeacherRow[] {
  return rows.map((row) => {
    if (!row.ids.some((id) => id >= vocabSize)) return row
    const [ids, logProbs, tail] = [row.ids.slice(), row.logProbs.slice(), row.tail.slice()]
    const width = ids.length / tail.length
    for (const [i, id] of ids.entries()) {
      if (id < vocabSize) continue
      const t = Math.floor(i / width)
      tail[t] = Math.log(Math.exp(tail[t]) + Math.exp(logProbs[i]))
      ids[i] = -1
      logProbs[i] = -1e30
    }
    return { ids, logProbs, tail }
  })
}

/**
 * The teacher's ids of all scored rows as inputs of the graph: picks i32[R, width], teacherLogProbs [R, width],
 * teacherTail [R]; rows of padding weigh nothing. With cross-entropy, `targetColumn` [R, width + 1] marks the column that
 * holds the row's own token, which is added as the last one where the teacher does not have it.
 */
export function picksOf(
  targets: Int32Array,
  said: readonly TeacherRow[],
  width: number,
  withTargets: boolean,
): Record<string, Int32Array | Float32Array> {
  const columns = withTargets ? width + 1 : width
  const r = targets.length
  const picks = new Int32Array(r * columns).fill(-1)
  const teacherLogProbs = new Float32Array(r * columns).fill(-1e30)
  const teacherTail = new Float32Array(r).fill(-1e30)
  const targetColumn = new Float32Array(withTargets ? r * columns : 0)
  let at = 0
  for (const { ids, logProbs, tail } of said) {
    const own = tail.length === 0 ? 0 : ids.length / tail.length
    for (let t = 0; t < tail.length; t++, at++) {
      picks.set(ids.subarray(t * own, (t + 1) * own), at * columns)
      teacherLogProbs.set(logProbs.subarray(t * own, (t + 1) * own), at * columns)
      teacherTail[at] = tail[t]
      if (!withTargets) continue
      const there = ids.subarray(t * own, (t + 1) * own).indexOf(targets[at])
      const column = there < 0 ? width : there
      picks[at * columns + column] = targets[at]
      targetColumn[at * columns + column] = 1
    }
  }
  return { picks, teacherLogProbs, teacherTail, ...(withTargets && { targetColumn }) }
}

/** Σ weight·((1 - alpha)·T²·divergence at T + alpha·cross-entropy at 1) of the scored rows. */
export function distillation(
  g: Graph,
  hidden: Tensor,
  table: Tensor,
  width: number,
  t: number,
  { alpha, beta }: Pick<Settings, 'alpha' | 'beta'>,
): { loss: Tensor } {
  const [r] = hidden.shape
  const columns = alpha > 0 ? width + 1 : width
  const f32 = (name: string, ...shape: number[]) => g.input(name, { dtype: 'f32', shape })
  const picks = g.input('picks', { dtype: 'i32', shape: [r, columns] })
  const weights = f32('weights', r)
  const [logProbs, , , tail] = vocabPick(g, hidden, table, picks, f32('temperature', 1))
  // At another temperature cross-entropy needs a softmax of its own.
  const mixes = alpha > 0 && t === 1
  const divergence = distillLoss(
    g,
    {
      logProbs,
      tail,
      teacherLogProbs: f32('teacherLogProbs', r, columns),
      teacherTail: f32('teacherTail', r),
      weights,
      ...(alpha > 0 && { targets: f32('targetColumn', r, columns) }),
    },
    {
      divergence: beta === 0 ? 'forward' : beta === 1 ? 'reverse' : 'jsd',
      beta,
      crossEntropyShare: mixes ? alpha : 0,
    },
  )
  if (alpha === 0 || mixes) return { loss: scale(g, divergence, t * t) }
  const targets = g.input('targets', { dtype: 'i32', shape: [r] })
  const [own] = vocabPick(g, hidden, table, view(g, targets, [r, 1]), fill(g, [1], 1)) // [R, 1]
  const crossEntropy = scale(g, sum(g, mul(g, view(g, own, [r]), weights)), -1)
  return { loss: add(g, scale(g, divergence, (1 - alpha) * t * t), scale(g, crossEntropy, alpha)) }
}

/** Keeps the choice of on-policy steps apart from other uses of a seed. */
const onPolicyStream = 0x6f6e70

function settingsOf(given: DistillConfig, full: boolean): Settings {
  const set = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  const learningRate = full ? defaultLearningRate.full : defaultLearningRate.lora
  const defaults = { ...trainingDefaults, ...rowDefaults, ...distillDefaults, learningRate }
  return { ...defaults, ...(set as unknown as Settings) }
}

function checkDistillArguments(args: Settings, { teacher }: DistillOptions): void {
  check(args, ['beta', 'alpha', 'lmbda'], (v) => v >= 0 && v <= 1, 'within 0 and 1')
  check(args, ['maxNewTokens'], (v) => Number.isInteger(v) && v > 0, 'a positive integer')
  check(args, ['topK'], (v) => Number.isInteger(v) && v >= 1 && v <= 64, 'an integer from 1 to 64')
  check(args, ['samplingTemperature'], (v) => v > 0 && v <= 100, 'a number above 0')
  if (args.temperature !== undefined) check(args, ['temperature'], (v) => v > 0 && v <= 100, 'a number above 0')
  if (args.lmbda > 0 && !(teacher instanceof LanguageModel))
    throw new OptionError(
      `lmbda: ${args.lmbda} has the student answer itself, which no cache (${typeof teacher === 'string' ? teacher : teacher.name}) knows: give the teacher's model`,
    )
  if (args.lmbda > 0 && args.packing) throw new OptionError('lmbda and packing exclude each other: leave one out')
}
