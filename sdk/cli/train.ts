import { totalmem } from 'node:os'
import type { Command } from 'commander'
import { OptionError } from '../errors.ts'
import type { LoraConfig } from '../formats/lora-config.ts'
import type { Given, OptionTable } from '../option-table.ts'
import { storeAt } from '../store/store.ts'
import type { TrainerOptions } from '../train/arguments.ts'
import { listCheckpoints } from '../train/checkpoint.ts'
import type { sftConfig } from '../train/config.ts'
import type { TrainLog, TrainOptions, TrainProgress } from '../train/run.ts'
import type { Forecast } from '../train/step.ts'
import { Interrupted, UsageError } from './errors.ts'
import { interruptible } from './interrupt.ts'
import { aliases, loraKeys, type runKeys, trlKeys } from './keys.ts'
import { readMetrics } from './metrics.ts'
import { kebabCase } from './names.ts'
import { withModel } from './open-model.ts'
import { addJson } from './options.ts'
import { formatNumber, log, print, printJson } from './output.ts'
import { plot } from './plot.ts'
import { Progress } from './progress.ts'
import { addFlags, configSection, readSettings, type Settings } from './settings.ts'
import { megabytes } from './write-model.ts'

// What the commands that train have in common.

export const missing = (key: string) =>
  new UsageError(`'--${kebabCase(key)}' is missing (or ${key} in the --config file)`)

type TrainingKeys = typeof runKeys & typeof loraKeys & Pick<typeof sftConfig, 'outputDir'>

/** What a command runs its trainer with. */
export interface Training<C extends OptionTable> {
  /** For the trainer. */
  readonly options: TrainerOptions<Given<C>>
  readonly signal: AbortSignal
  /** Trains to the end and draws where it is. */
  readonly follow: (train: (options: TrainOptions) => AsyncIterable<TrainLog>) => Promise<void>
}

/**
 * Makes a command one that trains: its flags, `--config` and `--print-config`, and what it does. `config` are the keys that are the
 * trainer's arguments, `required` those without which there is nothing to train. `prepare` looks at the settings before a model is
 * loaded, and gives what trains it.
 */
export function addTraining<K extends TrainingKeys, C extends OptionTable>(
  command: Command,
  keys: K,
  config: C,
  required: readonly (keyof K & string)[],
  prepare: (settings: Settings<K>) => Promise<(training: Training<C>) => Promise<void>>,
  printResult: (outputDir: string, json: boolean) => Promise<void> = printTrained,
): void {
  addFlags(command, keys)
  command.option('--print-config', 'print these settings as a commented file for --config, and do nothing else')
  addJson(command).action(async (flags: Record<string, unknown>) => {
    const given = readSettings(flags, keys, aliases)
    const settings: Settings<TrainingKeys> & Record<string, unknown> = given
    if (flags.printConfig) return print(configFile(command.name(), keys, config, given).trimEnd())
    for (const key of required) if (settings[key] === undefined || settings[key] === null) throw missing(key)
    const [trainDataset, evalDataset, outputDir] = [settings.data!, settings.evalData, settings.outputDir!]
    const peft = whatTrains(settings)
    const dtype = settings.dtype ?? (settings.full ? 'f32' : undefined)
    const onWarning = (message: string) => log(`warning: ${message}`)
    const args = only(given, config) as Given<C>
    const train = await prepare(given)
    await interruptible((signal) =>
      withModel({ ...settings, dtype, workload: 'training' }, signal, (model) =>
        train({
          options: { model, trainDataset, evalDataset, peft, args, onWarning },
          signal,
          follow: (lines) =>
            showTraining((onProgress) => lines({ resume: settings.resume, signal, onProgress }), outputDir),
        }),
      ),
    )
    await printResult(outputDir, flags.json === true)
  })
}

/** As a trainer's `peft`: a new adapter (its settings), the loaded one (undefined), everything (null). */
function whatTrains(settings: Settings<TrainingKeys>): Partial<LoraConfig> | null | undefined {
  const { full, adapter } = settings
  const given = Object.keys(loraKeys).find((key) => settings[key as keyof typeof loraKeys] !== undefined)
  if (full && adapter) throw new OptionError('full fine-tuning and an adapter exclude each other: leave one out')
  if (full && given) throw new OptionError(`full fine-tuning has no adapter: leave ${given} out`)
  if (adapter && given) throw new OptionError(`a loaded adapter keeps its own ${given}: leave it out, or the adapter`)
  return full ? null : adapter ? undefined : loraOf(settings)
}

/** The LoRA settings under PEFT's names. */
export function loraOf(settings: Settings<typeof loraKeys>): Partial<LoraConfig> {
  const { loraR: r, loraTargetModules, excludeModules, ...others } = only(settings, loraKeys)
  const all = { r, ...others, targetModules: names(loraTargetModules), excludeModules: names(excludeModules) }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

/** A single plain word is a name; PEFT would take it for a regular expression that matches no path. */
function names(given: string | readonly string[] | undefined): string | readonly string[] | undefined {
  const one = typeof given === 'object' && given.length === 1 ? given[0] : given
  if (typeof one !== 'string' || one === 'all-linear') return one
  return /^\w+$/.test(one) ? [one] : one
}

/** The settings of some keys alone. */
export const only = <T extends OptionTable>(settings: object, keys: T): Settings<T> =>
  Object.fromEntries(Object.entries(settings).filter(([key]) => Object.hasOwn(keys, key))) as Settings<T>

/** Settings as a YAML file that holds and explains every key. */
function configFile(command: string, keys: OptionTable, config: OptionTable, settings: object): string {
  const rest = Object.fromEntries(
    Object.entries(keys).filter(([key]) => key === 'outputDir' || ![config, loraKeys, trlKeys].some((of) => key in of)),
  )
  const { outputDir: _, ...training } = config
  const fixed = Object.fromEntries(Object.entries(trlKeys).filter(([key]) => key in keys && !(key in config)))
  const sections = [
    configSection('What trains, on what', rest, settings),
    configSection('How it trains', training, settings),
    configSection('The adapter', loraKeys, settings),
    configSection('Keys of TRL with one meaning here: accepted so that its files run as they are', fixed, settings),
  ]
  return `# Settings of a fine-tuning run: npx halfling ${command} --config ${command}.yaml
# A key behind a # shows what holds without it, or an example. Flags win over this file. learningRate is the same as
# learning_rate.

${sections.join('\n')}`
}

/** Runs a training to its end and draws where it is. */
async function showTraining(
  train: (onProgress: (progress: TrainProgress) => void) => AsyncIterable<TrainLog>,
  outputDir: string,
): Promise<void> {
  let progress = new Progress('reading')
  let evaluating: Progress | null = null
  const onProgress = (at: TrainProgress) => {
    if (at.phase === 'reading') progress.count(at.rows, 'rows')
    else if (at.phase === 'ready') {
      progress.end()
      tellMemory(at.totalSteps, at.tokens, at.forecast)
      progress = new Progress('training')
    } else if (at.phase === 'rollouts')
      progress.count(at.done, `of ${formatNumber(at.total)} completions, ${formatNumber(at.tokens)} tokens`)
    else {
      evaluating ??= new Progress('evaluating')
      evaluating.update(at.rows, at.totalRows, `${formatNumber(at.rows)} of ${formatNumber(at.totalRows)} rows`)
    }
  }
  let first: number | undefined
  let held = ''
  try {
    for await (const line of train(onProgress)) {
      if ('warning' in line) {
        log(`warning: step ${line.step}: ${line.warning}`)
        continue
      }
      if ('evalLoss' in line || 'evalReward' in line) {
        evaluating = null
        held =
          'evalLoss' in line
            ? ` | evalLoss ${line.evalLoss.toPrecision(4)}`
            : ` | evalReward ${line.evalReward.toPrecision(4)}`
        continue
      }
      first ??= line.step - 1
      const { step, totalSteps, loss, reward, meanLength, tokensPerSecond } = line
      const rolled =
        reward === undefined ? '' : ` | reward ${reward.toPrecision(3)} | length ${formatNumber(meanLength!)}`
      const details = `step ${step}/${totalSteps} | loss ${loss.toPrecision(4)}${rolled}${held} | ${formatNumber(tokensPerSecond)} tokens/s`
      progress.update(step, totalSteps, details, first)
    }
  } catch (error) {
    throw error instanceof Interrupted ? new Interrupted(await whereItStopped(outputDir)) : error
  } finally {
    progress.end()
  }
}

/** What is to come, before the first step is done: with a large model that takes minutes. */
function tellMemory(totalSteps: number, tokens: number, { weights, optimizer, activations, total }: Forecast): void {
  log(
    `${formatNumber(totalSteps)} steps; memory for the largest batch (${formatNumber(tokens)} tokens): ${megabytes(total)}` +
      ` (weights ${megabytes(weights)}, optimizer ${megabytes(optimizer)}, activations ${megabytes(activations)})`,
  )
  const machine = Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY)
  if (total > machine)
    log(`warning: this machine has ${megabytes(machine)}; lower perDeviceTrainBatchSize or maxLength, or use dtype q4`)
}

/** The last line of the metrics, or the curve of the loss. */
async function printTrained(outputDir: string, json: boolean): Promise<void> {
  const lines = await readMetrics(outputDir)
  if (json) return printJson({ ...lines.at(-1), outputDir })
  const losses = lines.flatMap((line) => ('loss' in line ? [line.loss] : []))
  print(plot(losses))
  print(`loss ${losses[0]?.toPrecision(4)} -> ${losses.at(-1)?.toPrecision(4)}, saved in ${outputDir}`)
}

async function whereItStopped(outputDir: string): Promise<string> {
  const last = (await listCheckpoints(await storeAt(outputDir))).at(-1)
  return last ? `interrupted; --resume goes on from ${last.folder.name}` : 'interrupted before the first checkpoint'
}
