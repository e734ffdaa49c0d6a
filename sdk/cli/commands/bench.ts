import type { Command } from 'commander'
import { interruptible } from '../interrupt.ts'
import { measureDecode, measurePrefill, measureTraining } from '../measure.ts'
import { withModel } from '../open-model.ts'
import { addJson, addModel, integer, type JsonFlag, type ModelFlags } from '../options.ts'
import { formatRate, print, printJson } from '../output.ts'

interface Flags extends JsonFlag, ModelFlags {
  readonly promptTokens: number
  readonly tokens: number
  readonly trainTokens: number
  readonly trainSteps: number
}

export function addBench(program: Command): void {
  const command = program.command('bench').description('tokens per second of prefill, decoding and LoRA training')
  addModel(command)
    .addOption(integer('--prompt-tokens <n>', 'length of the prompt', 1).default(128))
    .addOption(integer('--tokens <n>', 'tokens to decode', 1).default(32))
    .addOption(integer('--train-tokens <n>', 'length of the training row', 2).default(512))
    .addOption(integer('--train-steps <n>', 'after one that is not timed; 0: no training', 0).default(2))
  addJson(command).action(async (flags: Flags) => {
    const { promptTokens, tokens, trainTokens, trainSteps, json } = flags
    await interruptible((signal) =>
      withModel(flags, signal, async (lm, loadSeconds) => {
        const { name, info } = lm.model.target
        const result = {
          model: flags.model ?? 'nano',
          device: name,
          threads: info.threads,
          loadSeconds,
          prefillTokensPerSecond: await measurePrefill(lm, promptTokens, signal),
          decodeTokensPerSecond: await measureDecode(lm, tokens, signal),
          trainingTokensPerSecond: trainSteps > 0 ? await measureTraining(lm, trainTokens, trainSteps, signal) : null,
        }
        if (json) return printJson(result)
        print(`${name}: ${info.description}, ${info.threads} threads`)
        print(`prefill of ${promptTokens}: ${formatRate(result.prefillTokensPerSecond)}`)
        print(`decode of ${tokens}: ${formatRate(result.decodeTokensPerSecond)}`)
        print(`LoRA steps of ${trainTokens}: ${formatRate(result.trainingTokensPerSecond)}`)
      }),
    )
  })
}
