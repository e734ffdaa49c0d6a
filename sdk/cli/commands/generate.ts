import { text } from 'node:stream/consumers'
import type { Command } from 'commander'
import { oneAnswer, printAnswer } from '../answer.ts'
import { UsageError } from '../errors.ts'
import { interruptible } from '../interrupt.ts'
import { withModel } from '../open-model.ts'
import {
  addJson,
  addModel,
  addPrecision,
  addSampling,
  type JsonFlag,
  type ModelFlags,
  type SamplingFlags,
  samplingOf,
} from '../options.ts'

interface Flags extends JsonFlag, ModelFlags, SamplingFlags {
  readonly prompt?: string
}

export function addGenerate(program: Command): void {
  const command = program.command('generate').description('continues a raw text: no chat template')
  addPrecision(addModel(command)).option('--prompt <text>', 'default: standard input, without its last line break')
  addJson(addSampling(command)).action(async (flags: Flags) => {
    const prompt = flags.prompt ?? (await readInput())
    await interruptible((signal) =>
      withModel(flags, signal, async (lm, loadSeconds) => {
        const options = samplingOf(flags)
        const limit = lm.maxNewTokens(options)
        const pieces = lm.generate(prompt, { ...options, signal })
        await printAnswer(lm, pieces, { loadSeconds, json: flags.json, limit, more: oneAnswer })
      }),
    )
  })
}

async function readInput(): Promise<string> {
  if (process.stdin.isTTY)
    throw new UsageError("option '--prompt <text>' is missing, and nothing comes on standard input")
  return (await text(process.stdin)).replace(/\r?\n$/, '')
}
