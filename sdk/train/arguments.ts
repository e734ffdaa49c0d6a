import type { RowSource } from '../data/rows.ts'
import { OptionError } from '../errors.ts'
import type { LoraConfig } from '../formats/lora-config.ts'
import { LanguageModel } from '../generate/language-model.ts'
import { type Filled, fillOptions, type Given } from '../option-table.ts'
import { checkKeys, shown } from '../options.ts'
import type { Arguments, TrainingSettings, trainingConfig } from './config.ts'

/** What every trainer takes. */
export interface TrainerOptions<Config> {
  /** What trains; of a DistillTrainer the student. */
  readonly model: LanguageModel
  /** A .jsonl, .json or .parquet file, a hub data set, or rows. Of a GRPOTrainer prompts, with whatever columns the rewards need. */
  readonly trainDataset: RowSource
  /** Scored as evalStrategy says: `evalLoss`; by a GRPOTrainer answered greedily: `evalReward`. */
  readonly evalDataset?: RowSource
  /** LoRA; `null` trains the full model; left out, training goes on from the active adapter, or makes one with the defaults. */
  readonly peft?: Partial<LoraConfig> | null
  readonly args: Config
  /** Told of what is worth knowing about the data and the run. */
  readonly onWarning?: (message: string) => void
}

/**
 * A trainer's arguments with their defaults; `learningRates` are those of LoRA and of full fine-tuning, `own` the options that this
 * trainer alone has. Throws OptionError naming the first option that is unknown, out of range, or goes badly with another.
 */
export function readArguments<T extends typeof trainingConfig>(
  config: T,
  options: TrainerOptions<Arguments<T>>,
  [lora, full]: readonly [number, number],
  own: readonly string[] = [],
): Filled<T> & TrainingSettings {
  checkKeys(options, ['model', 'trainDataset', 'evalDataset', 'peft', 'args', 'onWarning', ...own], 'trainer')
  const { model, peft, evalDataset } = options
  if (!(model instanceof LanguageModel))
    throw new OptionError(`model: wanted what loadModel gives, got ${shown(model)}`)
  const place = options.args?.outputDir
  const isStore = typeof place === 'object' && place !== null
  const given = isStore ? { ...options.args, outputDir: place.name } : options.args
  const filled = { ...fillOptions(config, given as unknown as Given<T>, 'args'), ...(isStore && { outputDir: place }) }
  const {
    learningRate = peft === null ? full : lora,
    evalStrategy = evalDataset === undefined ? 'no' : 'epoch',
    outputDir,
    saveStrategy,
    loadBestModelAtEnd,
    earlyStoppingPatience,
  } = filled as unknown as Filled<typeof trainingConfig>
  if (outputDir === null && loadBestModelAtEnd)
    throw new OptionError('loadBestModelAtEnd needs an outputDir: the best is read from its checkpoint')
  if (evalStrategy !== 'no' && evalDataset === undefined)
    throw new OptionError(`evalStrategy '${evalStrategy}' needs an evalDataset`)
  if (loadBestModelAtEnd && (evalStrategy === 'no' || saveStrategy === 'no'))
    throw new OptionError("loadBestModelAtEnd needs evalStrategy and saveStrategy 'steps' or 'epoch'")
  if (earlyStoppingPatience !== null && evalStrategy === 'no')
    throw new OptionError("earlyStoppingPatience needs evalStrategy 'steps' or 'epoch'")
  return { ...filled, learningRate, evalStrategy } as unknown as Filled<T> & TrainingSettings
}

/** Arguments that do not change the numbers of a run up to a given step, so a resumed run may have others. */
const freeToChange: ReadonlySet<string> = new Set<keyof TrainingSettings>([
  'outputDir',
  'loggingSteps',
  'saveStrategy',
  'saveSteps',
  'saveTotalLimit',
  'numTrainEpochs',
  'maxSteps',
  'loadBestModelAtEnd',
])

/** The arguments that decide the numbers of a run. */
export const decisive = (args: object): Record<string, unknown> =>
  Object.fromEntries(Object.entries(args).filter(([key, value]) => !freeToChange.has(key) && value !== undefined))
