import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import { loadModel } from '../../load.ts'
import { distillConfig } from '../../train/config.ts'
import { DistillTrainer } from '../../train/distill.ts'
import { distillKeys } from '../keys.ts'
import { addTraining } from '../train.ts'

export function addDistill(program: Command): void {
  const command = program
    .command('distill')
    .description(
      "trains a student on a teacher's distributions, from a cache or a model; keys are those of sft and TRL's GKD",
    )
  const required = ['teacher', 'data', 'outputDir'] as const
  addTraining(command, distillKeys, distillConfig, required, async ({ teacher, device, threads, build }) => {
    const isCache = existsSync(join(teacher!, 'teacher.json'))
    return async ({ options, signal, follow }) => {
      const live = isCache ? null : await loadModel(teacher, { device, threads, build, signal })
      try {
        const trainer = new DistillTrainer({ ...options, teacher: live ?? teacher! })
        await follow((at) => trainer.train(at))
      } finally {
        await live?.close()
      }
    }
  })
}
