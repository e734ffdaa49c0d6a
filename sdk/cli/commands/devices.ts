import { availableParallelism, freemem, totalmem } from 'node:os'
import type { Command } from 'commander'
import { findDevices } from '../../device.ts'
import { type CacheDType, cacheBytes } from '../../model/precision.ts'
import { halfBillion } from '../../speed.ts'
import { addJson, addThreads, type DeviceFlags, type JsonFlag } from '../options.ts'
import { formatNumber, print, printJson } from '../output.ts'

export function addDevices(program: Command): void {
  const command = program
    .command('devices')
    .description('what can compute here, in the order of preference, and how fast')
  addJson(addThreads(command)).action(async ({ json, ...options }: DeviceFlags & JsonFlag) => {
    const devices = (await findDevices({ ...options, measure: true })).map((device) => ({
      ...device,
      ...(device.memoryLimit && { contextOfHalfBillion: contextIn(device.memoryLimit) }),
    }))
    const machine = { cores: availableParallelism(), memory: totalmem(), freeMemory: freemem() }
    if (json) return printJson({ machine, devices })
    const gigabytes = (bytes: number) => `${formatNumber(bytes / 1e9)} GB`
    print(`${machine.cores} cores, ${gigabytes(machine.memory)} of memory, ${gigabytes(machine.freeMemory)} free`)
    for (const { name, available, reason, memoryLimit, speed, autoFor, contextOfHalfBillion: context } of devices) {
      print(`${available ? '✓' : '✗'} ${name.padEnd(10)} ${reason}`)
      const more = (text: string) => print(`  ${''.padEnd(10)} ${text}`)
      if (autoFor?.length) more(`what auto takes for ${autoFor.join(', ')}`)
      if (memoryLimit !== undefined && speed && context) {
        more(
          `${formatNumber(speed.gflops)} GFLOP/s in f32, reads ${formatNumber(speed.gigabytes.q4)} GB/s of q4 weights, holds ${gigabytes(memoryLimit)}`,
        )
        const { decoding, prefill, training } = speed.tokensOfHalfBillion
        more(
          `a 0.5B model in q4, estimated: ${formatNumber(decoding)} tokens/s, ${formatNumber(prefill)} of a prompt, ${formatNumber(training)} training LoRA`,
        )
        more(
          `beside it ${formatNumber(context.f32)} tokens of context fit in an f32 cache, ${formatNumber(context.f16)} in f16, of all answers together`,
        )
      }
    }
  })
}

/** Tokens whose keys and values fit beside a 0.5B model's weights in q4. */
function contextIn(memoryLimit: number) {
  const tokens = (dtype: CacheDType) =>
    Math.max(0, Math.floor((memoryLimit - halfBillion.weightBytes) / cacheBytes(halfBillion, 1, 1, dtype)))
  return { f32: tokens('f32'), f16: tokens('f16') }
}
