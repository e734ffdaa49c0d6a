import type { Command } from 'commander'
import { DeviceError } from '../../errors.ts'
import type { LanguageModel } from '../../generate/language-model.ts'
import type { KernelProfile } from '../../target.ts'
import { interruptible } from '../interrupt.ts'
import { measureDecode, measurePrefill, measureTraining } from '../measure.ts'
import { withModel } from '../open-model.ts'
import { addJson, addModel, addPrecision, integer, type JsonFlag, type ModelFlags } from '../options.ts'
import { formatRate, print, printJson } from '../output.ts'

interface Flags extends JsonFlag, ModelFlags {
  readonly promptTokens: number
  readonly tokens: number
  readonly trainTokens: number
  readonly trainSteps: number
  readonly profile?: boolean
}

export function addBench(program: Command): void {
  const command = program.command('bench').description('tokens per second of prefill, decoding and LoRA training')
  addPrecision(addModel(command))
    .addOption(integer('--prompt-tokens <n>', 'length of the prompt', 1).default(128))
    .addOption(integer('--tokens <n>', 'tokens to decode', 1).default(32))
    .addOption(integer('--train-tokens <n>', 'length of the training row', 2).default(512))
    .addOption(integer('--train-steps <n>', 'after one that is not timed; 0: no training', 0).default(2))
    .option('--profile', 'the time of each kernel (WebGPU with timestamp-query)')
  addJson(command).action(async (flags: Flags) => {
    const { promptTokens, tokens, trainTokens, trainSteps, json } = flags
    await interruptible((signal) =>
      withModel(flags, signal, async (lm, loadSeconds) => {
        const { name, info, profile: canProfile } = lm.model.target
        if (flags.profile && !canProfile)
          throw new DeviceError(`${name} does not time single kernels: --profile is for --device webgpu`)
        const result = {
          model: flags.model ?? 'nano',
          device: name,
          threads: info.threads,
          loadSeconds,
          prefillTokensPerSecond: await measurePrefill(lm, promptTokens, signal),
          decodeTokensPerSecond: await measureDecode(lm, tokens, signal),
          trainingTokensPerSecond: trainSteps > 0 ? await measureTraining(lm, trainTokens, trainSteps, signal) : null,
        }
        const profile = flags.profile && {
          prefill: await profileOf(lm, () => measurePrefill(lm, promptTokens, signal)),
          decode: await profileOf(lm, () => measureDecode(lm, tokens, signal)),
          ...(trainSteps > 0 && {
            training: await profileOf(lm, () => measureTraining(lm, trainTokens, trainSteps, signal)),
          }),
        }
        if (json) return printJson({ ...result, ...(profile && { profile }) })
        print(`${name}: ${info.description}, ${info.threads} threads`)
        print(`prefill of ${promptTokens}: ${formatRate(result.prefillTokensPerSecond)}`)
        print(`decode of ${tokens}: ${formatRate(result.decodeTokensPerSecond)}`)
        print(`LoRA steps of ${trainTokens}: ${formatRate(result.trainingTokensPerSecond)}`)
        for (const [work, kernels] of Object.entries(profile || {})) printProfile(work, kernels)
      }),
    )
  })
}

interface Row extends KernelProfile {
  /** Of the time of all kernels. */
  readonly share: number
  readonly gigabytesPerSecond: number
  readonly gflops: number | null
}

/** The kernels of some work, the slowest first. Throws DeviceError where they cannot be timed. */
async function profileOf(lm: LanguageModel, work: () => Promise<unknown>): Promise<Row[]> {
  const kernels = await lm.model.target.profile!(work)
  const total = kernels.reduce((sum, { milliseconds }) => sum + milliseconds, 0)
  return kernels.map((kernel) => {
    const { milliseconds, bytes, operations } = kernel
    const perSecond = (n: number) => n / Math.max(milliseconds, 1e-6) / 1e6
    return {
      ...kernel,
      share: milliseconds / Math.max(total, 1e-6),
      gigabytesPerSecond: perSecond(bytes),
      gflops: operations === null ? null : perSecond(operations),
    }
  })
}

const figures = (x: number): string => Number(x.toPrecision(3)).toLocaleString('en-US', { maximumFractionDigits: 5 })

function printProfile(work: string, rows: readonly Row[]): void {
  const columns = (...[kernel, ...numbers]: string[]) =>
    print(`${kernel.padEnd(32)}${numbers.map((text) => text.padStart(10)).join('')}`)
  print('')
  columns(work, 'calls', 'ms', 'share', 'GB/s', 'GFLOP/s')
  for (const { kernel, calls, milliseconds, share, gigabytesPerSecond, gflops } of rows)
    columns(
      kernel,
      String(calls),
      figures(milliseconds),
      `${(100 * share).toFixed(1)}%`,
      figures(gigabytesPerSecond),
      gflops === null ? '' : figures(gflops),
    )
}
