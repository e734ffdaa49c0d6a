import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import { loadModel } from '../../load.ts'
import { type DistillConfig, DistillTrainer } from '../../train/distill.ts'
import { distillKeys, distillTrainerKeys } from '../distill-keys.ts'
import { interruptible } from '../interrupt.ts'
import { withModel } from '../open-model.ts'
import { addJson } from '../options.ts'
import { log } from '../output.ts'
import { addFlags, readSettings } from '../settings.ts'
import { sftDefaults } from '../sft-defaults.ts'
import { aliases } from '../sft-keys.ts'
import { missing, only, printTrained, showTraining, whatTrains } from '../train.ts'

export function addDistill(program: Command): void {
  const command = program
    .command('distill')
    .description(
      "trains a student on a teacher's distributions, from a cache or a model; keys are those of sft and TRL's GKD",
    )
  addFlags(command, distillKeys, sftDefaults)
  addJson(command).action(async (flags: Record<string, unknown>) => {
    const settings = readSettings(flags, distillKeys, aliases)
    const { data, evalData, outputDir, full, resume, teacher, device, threads } = settings
    if (teacher === undefined) throw missing('teacher')
    if (data === undefined) throw missing('data')
    if (outputDir === undefined) throw missing('outputDir')
    const peft = whatTrains(settings)
    const dtype = settings.dtype ?? (full ? 'f32' : undefined)
    const evalStrategy = settings.evalStrategy ?? (evalData === undefined ? undefined : 'epoch')
    const args = { ...only(settings, distillTrainerKeys), outputDir, evalStrategy } as DistillConfig
    await interruptible((signal) =>
      withModel({ ...settings, dtype }, signal, async (model) => {
        const live = existsSync(join(teacher, 'teacher.json'))
          ? null
          : await loadModel(teacher, { device, threads, signal })
        try {
          const onWarning = (message: string) => log(`warning: ${message}`)
          const rows = { trainDataset: data, evalDataset: evalData }
          const trainer = new DistillTrainer({ model, teacher: live ?? teacher, ...rows, peft, args, onWarning })
          await showTraining((onProgress) => trainer.train({ resume, signal, onProgress }), outputDir)
        } finally {
          await live?.close()
        }
      }),
    )
    await printTrained(outputDir, flags.json === true)
  })
}
