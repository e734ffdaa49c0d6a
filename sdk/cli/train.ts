import { totalmem } from 'node:os'
import { OptionError } from '../errors.ts'
import type { LoraConfig } from '../model/adapter.ts'
import { listCheckpoints } from '../train/checkpoint.ts'
import type { TrainLog, TrainProgress } from '../train/loop.ts'
import type { Forecast } from '../train/step.ts'
import { Interrupted, UsageError } from './errors.ts'
import { readMetrics } from './metrics.ts'
import { kebabCase } from './names.ts'
import { formatNumber, log, print, printJson } from './output.ts'
import { plot } from './plot.ts'
import { Progress } from './progress.ts'
import type { Settings } from './settings.ts'
import { loraConfig, loraKeys, type runKeys } from './sft-keys.ts'
import { megabytes } from './write-model.ts'

// What the commands that train have in common.

export const missing = (key: string) =>
  new UsageError(`'--${kebabCase(key)}' is missing (or ${key} in the --config file)`)

/** As a trainer's `peft`: a new adapter (its settings), the loaded one (undefined), everything (null). */
export function whatTrains(
  settings: Settings<typeof loraKeys> & Pick<Settings<typeof runKeys>, 'full' | 'adapter'>,
): Partial<LoraConfig> | null | undefined {
  const { full, adapter } = settings
  const lora = loraConfig(settings)
  const given = Object.keys(loraKeys).find((key) => settings[key as keyof typeof loraKeys] !== undefined)
  if (full && adapter) throw new OptionError('full fine-tuning and an adapter exclude each other: leave one out')
  if (full && given) throw new OptionError(`full fine-tuning has no adapter: leave ${given} out`)
  if (adapter && given) throw new OptionError(`a loaded adapter keeps its own ${given}: leave it out, or the adapter`)
  return full ? null : adapter ? undefined : lora
}

/** The settings of some keys alone. */
export const only = (settings: object, keys: object): Record<string, unknown> =>
  Object.fromEntries(Object.entries(settings).filter(([key]) => Object.hasOwn(keys, key)))

/** Runs a training to its end and draws where it is. */
export async function showTraining(
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
export async function printTrained(outputDir: string, json: boolean): Promise<void> {
  const lines = await readMetrics(outputDir)
  if (json) return printJson({ ...lines.at(-1), outputDir })
  const losses = lines.flatMap((line) => ('loss' in line ? [line.loss] : []))
  print(plot(losses))
  print(`loss ${losses[0]?.toPrecision(4)} -> ${losses.at(-1)?.toPrecision(4)}, saved in ${outputDir}`)
}

async function whereItStopped(outputDir: string): Promise<string> {
  const last = (await listCheckpoints(outputDir)).at(-1)
  return last ? `interrupted; --resume goes on from ${last.folder}` : 'interrupted before the first checkpoint'
}
