import { notScored, packBatch } from '../data/pack.ts'
import type { Example } from '../data/tokenize.ts'
import { OptionError } from '../errors.ts'
import { generateBatch } from '../generate/batch.ts'
import { LanguageModel } from '../generate/language-model.ts'
import { randomBits, uniform } from '../random.ts'
import type { Source } from '../store/store.ts'
import { readArguments, type TrainerOptions } from './arguments.ts'
import { type DistillConfig, type DistillSettings, distillConfig, learningRates } from './config.ts'
import { distillation } from './objectives.ts'
import {
  heldOutLoss,
  meanWeights,
  readTrainingRows,
  setupOf,
  stepBatches,
  type TrainingRows,
  tokensOf,
} from './rows.ts'
import { Run, type TrainLog, type TrainOptions, type TrainPlan } from './run.ts'
import { type OpenTeacher, openTeacher, teacherInputs } from './teacher.ts'

/** What a DistillTrainer takes; trainDataset are the rows that the teacher was asked about. */
export interface DistillOptions extends TrainerOptions<DistillConfig> {
  /** A cache's folder (`halfling teacher build`), by its path or as `fileFolder` gives it, or a teacher that is loaded beside the student. */
  readonly teacher: string | Source | LanguageModel
}

/** Keeps the choice of on-policy steps apart from other uses of a seed. */
const onPolicyStream = 0x6f6e70

/**
 * Distillation: the divergence from the teacher's distribution (its likeliest ids and the rest as one) at every scored token,
 * averaged over all scored tokens of an optimizer step, and mixed with cross-entropy where alpha says so.
 *
 *     for await (const log of new DistillTrainer({ model, teacher: 'cache', trainDataset: 'rows.jsonl', args: { outputDir: 'out' } }).train()) ...
 */
export class DistillTrainer {
  readonly model: LanguageModel
  /** With the defaults filled in. */
  readonly args: DistillSettings
  private readonly options: DistillOptions

  /** Throws OptionError for arguments out of range. */
  constructor(options: DistillOptions) {
    this.args = readArguments(distillConfig, options, learningRates.sft, ['teacher'])
    this.options = options
    this.model = options.model
    const { lmbda, packing } = this.args
    const { teacher } = options
    if (lmbda > 0 && !(teacher instanceof LanguageModel))
      throw new OptionError(
        `lmbda: ${lmbda} has the student answer itself, which no cache (${typeof teacher === 'string' ? teacher : teacher.name}) knows: give the teacher's model`,
      )
    if (lmbda > 0 && packing) throw new OptionError('lmbda and packing exclude each other: leave one out')
  }

  /**
   * Reads the rows, and tells what training them takes; nothing is trained.
   *
   * @throws DataError, OptionError, MemoryError
   */
  async plan(): Promise<TrainPlan> {
    const { run, teacher } = await this.open()
    await teacher.close()
    return run.plan().finally(() => run.leave())
  }

  /**
   * Trains to the end, yielding a log line every `loggingSteps` and at each evaluation. The trained adapter stays active on the
   * model and is written to `outputDir`.
   *
   * @throws DataError, OptionError, MemoryError before the first step (also for a cache of other rows, another tokenizer or
   *   temperature); NumericError when a loss is not finite
   */
  async *train(at: TrainOptions = {}): AsyncGenerator<TrainLog, void> {
    const { run, rows, teacher } = await this.open(at)
    try {
      yield* run.train(() => this.loop(run, rows, teacher))
    } finally {
      await teacher.close()
    }
  }

  private async open(at: TrainOptions = {}) {
    const { options, args } = this
    const rows = await readTrainingRows(options, args, at)
    const teacher = await openTeacher(options, args, rows.examples)
    const { temperature, width, identity } = teacher
    const setup = setupOf(rows, args)
    const run = await Run.open(options, args, at, {
      ...setup,
      objective: distillation({ ...args, width, temperature }),
      decisive: { ...setup.decisive, temperature, teacher: identity },
    })
    return { run, rows, teacher }
  }

  private async *loop(run: Run, rows: TrainingRows, teacher: OpenTeacher): AsyncGenerator<TrainLog, void> {
    const { seed, lmbda, alpha } = this.args
    const { width, temperature } = teacher
    const { signal } = run.at
    for await (const step of run.steps()) {
      const isOnPolicy = uniform(seed, onPolicyStream, step) < lmbda
      const batches: Example[][] = []
      for (const batch of stepBatches(rows, step, this.args))
        batches.push(isOnPolicy ? await this.ownAnswers(batch, randomBits(seed, step, batches.length), signal) : batch)
      const weights = meanWeights(batches)
      let loss = 0
      for (const [micro, examples] of batches.entries()) {
        const batch = packBatch(examples)
        const out = await run.accumulate(micro, batch, {
          weights: weights(batch),
          temperature: Float32Array.of(temperature),
          ...teacherInputs(batch.targets, await teacher.ask(examples, signal), width, alpha > 0),
          ...(alpha > 0 && temperature !== 1 && { targets: batch.targets }),
        })
        loss += out.loss[0]
      }
      yield* run.update({ loss }, tokensOf(batches))
      yield* run.evaluate(() => heldOutLoss(run, rows))
      await run.checkpoint()
    }
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
        labels: [...prompts[index].map(() => notScored), ...answer],
        row: examples[index].row,
      }
    }
    return answers
  }
}
