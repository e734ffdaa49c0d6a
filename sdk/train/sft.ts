import { packBatch } from '../data/pack.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import { readArguments, type TrainerOptions } from './arguments.ts'
import { learningRates, type SFTConfig, type SFTSettings, sftConfig } from './config.ts'
import { crossEntropy } from './objectives.ts'
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

/** What an SFTTrainer takes. */
export type SFTOptions = TrainerOptions<SFTConfig>

/**
 * Supervised fine-tuning: cross-entropy of the scored tokens, averaged over all scored tokens of an optimizer step.
 *
 * ```ts
 * import { loadModel, SFTTrainer } from 'halfling'
 *
 * const model = await loadModel()
 * const trainer = new SFTTrainer({ model, trainDataset: 'rows.jsonl', args: { outputDir: 'out', maxSteps: 10 } })
 * for await (const log of trainer.train()) console.log(log)
 * await model.close()
 * ```
 */
export class SFTTrainer {
  readonly model: LanguageModel
  /** With the defaults filled in. */
  readonly args: SFTSettings
  private readonly options: SFTOptions

  /** Throws OptionError for arguments out of range. */
  constructor(options: SFTOptions) {
    this.args = readArguments(sftConfig, options, learningRates.sft)
    this.options = options
    this.model = options.model
  }

  /**
   * Reads the rows, and tells what training them takes; nothing is trained.
   *
   * @throws DataError, OptionError, MemoryError
   */
  async plan(): Promise<TrainPlan> {
    const { run } = await this.open()
    return run.plan().finally(() => run.leave())
  }

  /**
   * Trains to the end, yielding a log line every `loggingSteps` and at each evaluation. The trained adapter stays active on the
   * model and is written to `outputDir`.
   *
   * @throws DataError, OptionError, MemoryError before the first step; NumericError when a loss or weight is not finite, or nothing was trained
   */
  async *train(at: TrainOptions = {}): AsyncGenerator<TrainLog, void> {
    const { run, rows } = await this.open(at)
    yield* run.train(() => this.loop(run, rows))
  }

  private async open(at: TrainOptions = {}) {
    const rows = await readTrainingRows(this.options, this.args, at)
    const run = await Run.open(this.options, this.args, at, { objective: crossEntropy, ...setupOf(rows, this.args) })
    return { run, rows }
  }

  private async *loop(run: Run, rows: TrainingRows): AsyncGenerator<TrainLog, void> {
    for await (const step of run.steps()) {
      const batches = stepBatches(rows, step, this.args)
      const weights = meanWeights(batches)
      let loss = 0
      for (const [micro, examples] of batches.entries()) {
        const batch = packBatch(examples)
        const out = await run.accumulate(micro, batch, { targets: batch.targets, weights: weights(batch) })
        loss += out.loss[0]
      }
      yield* run.update({ loss }, tokensOf(batches))
      yield* run.evaluate(() => heldOutLoss(run, rows))
      await run.checkpoint()
    }
  }
}
