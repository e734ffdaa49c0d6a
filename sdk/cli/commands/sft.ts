import type { Command } from 'commander'
import { OptionError } from '../../errors.ts'
import { listCheckpoints } from '../../train/checkpoint.ts'
import { type SFTConfig, type SFTOptions, SFTTrainer } from '../../train/sft.ts'
import { Interrupted, UsageError } from '../errors.ts'
import { interruptible } from '../interrupt.ts'
import { readMetrics } from '../metrics.ts'
import { kebabCase } from '../names.ts'
import { withModel } from '../open-model.ts'
import { addJson } from '../options.ts'
import { formatNumber, log, print, printJson } from '../output.ts'
import { plot } from '../plot.ts'
import { Progress } from '../progress.ts'
import { loraConfig, loraKeys, type SftSettings, trainerKeys } from '../sft-keys.ts'
import { addSftFlags, readSettings } from '../sft-settings.ts'

export function addSft(program: Command): void {
  const command = program
    .command('sft')
    .description('supervised fine-tuning: a LoRA adapter, or all weights (--full); keys are those of TRL and PEFT')
  addSftFlags(command)
  addJson(command).action(async (flags: Record<string, unknown>) => {
    const settings = readSettings(flags)
    const { data, outputDir } = settings
    if (data === undefined) throw missing('data')
    if (outputDir === undefined) throw missing('outputDir')
    const peft = whatTrains(settings)
    await interruptible((signal) => run({ ...settings, data, outputDir }, peft, signal))
    const lines = await readMetrics(outputDir)
    if (flags.json) return printJson({ ...lines.at(-1), outputDir })
    const losses = lines.flatMap((line) => ('loss' in line ? [line.loss] : []))
    print(plot(losses))
    print(`loss ${losses[0]?.toPrecision(4)} -> ${losses.at(-1)?.toPrecision(4)}, saved in ${outputDir}`)
  })
}

const missing = (key: string) => new UsageError(`'--${kebabCase(key)}' is missing (or ${key} in the --config file)`)

/** As SFTOptions.peft: a new adapter (its settings), the loaded one (undefined), everything (null). */
function whatTrains(settings: SftSettings): SFTOptions['peft'] {
  const { full, adapter } = settings
  const lora = loraConfig(settings)
  const given = Object.keys(loraKeys).find((key) => settings[key as keyof typeof loraKeys] !== undefined)
  if (full && adapter) throw new OptionError('full fine-tuning and an adapter exclude each other: leave one out')
  if (full && given) throw new OptionError(`full fine-tuning has no adapter: leave ${given} out`)
  if (adapter && given) throw new OptionError(`a loaded adapter keeps its own ${given}: leave it out, or the adapter`)
  return full ? null : adapter ? undefined : lora
}

type Run = SftSettings & Required<Pick<SftSettings, 'data' | 'outputDir'>>

async function run(settings: Run, peft: SFTOptions['peft'], signal: AbortSignal): Promise<void> {
  const { model, adapter, device, threads, full, data, evalData, outputDir, resume } = settings
  const dtype = settings.dtype ?? (full ? 'f32' : undefined)
  const given = Object.fromEntries(
    Object.keys(trainerKeys).map((key) => [key, settings[key as keyof typeof trainerKeys]]),
  )
  const evalStrategy = settings.evalStrategy ?? (evalData === undefined ? undefined : 'epoch')
  const args = { ...given, outputDir, evalStrategy } as SFTConfig
  await withModel({ model, adapter, device, threads, dtype }, signal, async (lm) => {
    const onWarning = (message: string) => log(`warning: ${message}`)
    const trainer = new SFTTrainer({ model: lm, trainDataset: data, evalDataset: evalData, peft, args, onWarning })
    const progress = new Progress('training')
    let first: number | undefined
    try {
      for await (const line of trainer.train({ resume, signal })) {
        if (!('loss' in line)) continue
        first ??= line.step - 1
        const { step, totalSteps, loss, tokensPerSecond } = line
        const details = `step ${step}/${totalSteps} | loss ${loss.toPrecision(4)} | ${formatNumber(tokensPerSecond)} tokens/s`
        progress.update(step, totalSteps, details, first)
      }
    } catch (error) {
      throw error instanceof Interrupted ? new Interrupted(await whereItStopped(outputDir)) : error
    } finally {
      progress.end()
    }
  })
}

async function whereItStopped(outputDir: string): Promise<string> {
  const last = (await listCheckpoints(outputDir)).at(-1)
  return last ? `interrupted; --resume goes on from ${last.folder}` : 'interrupted before the first checkpoint'
}
