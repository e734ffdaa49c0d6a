import type { Command } from 'commander'
import { type SFTConfig, SFTTrainer } from '../../train/sft.ts'
import { interruptible } from '../interrupt.ts'
import { withModel } from '../open-model.ts'
import { addJson } from '../options.ts'
import { log, print } from '../output.ts'
import { addFlags, readSettings } from '../settings.ts'
import { sftConfigFile, sftDefaults } from '../sft-defaults.ts'
import { aliases, sftKeys, trainerKeys } from '../sft-keys.ts'
import { missing, only, printTrained, showTraining, whatTrains } from '../train.ts'

export function addSft(program: Command): void {
  const command = program
    .command('sft')
    .description('supervised fine-tuning: a LoRA adapter, or all weights (--full); keys are those of TRL and PEFT')
  addFlags(command, sftKeys, sftDefaults)
  command.option('--print-config', 'print these settings as a commented file for --config, and do nothing else')
  addJson(command).action(async (flags: Record<string, unknown>) => {
    const settings = readSettings(flags, sftKeys, aliases)
    if (flags.printConfig) return print(sftConfigFile(settings).trimEnd())
    const { data, evalData, outputDir, full, resume } = settings
    if (data === undefined) throw missing('data')
    if (outputDir === undefined) throw missing('outputDir')
    const peft = whatTrains(settings)
    const dtype = settings.dtype ?? (full ? 'f32' : undefined)
    const evalStrategy = settings.evalStrategy ?? (evalData === undefined ? undefined : 'epoch')
    const args = { ...only(settings, trainerKeys), outputDir, evalStrategy } as SFTConfig
    await interruptible((signal) =>
      withModel({ ...settings, dtype }, signal, async (model) => {
        const onWarning = (message: string) => log(`warning: ${message}`)
        const trainer = new SFTTrainer({ model, trainDataset: data, evalDataset: evalData, peft, args, onWarning })
        await showTraining((onProgress) => trainer.train({ resume, signal, onProgress }), outputDir)
      }),
    )
    await printTrained(outputDir, flags.json === true)
  })
}
