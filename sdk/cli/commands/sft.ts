import type { Command } from 'commander'
import { sftConfig } from '../../train/config.ts'
import { SFTTrainer } from '../../train/sft.ts'
import { sftKeys } from '../keys.ts'
import { addTraining } from '../train.ts'

export function addSft(program: Command): void {
  const command = program
    .command('sft')
    .description('supervised fine-tuning: a LoRA adapter, or all weights (--full); keys are those of TRL and PEFT')
  addTraining(command, sftKeys, sftConfig, ['data', 'outputDir'], async () => ({ options, follow }) => {
    const trainer = new SFTTrainer(options)
    return follow((at) => trainer.train(at))
  })
}
