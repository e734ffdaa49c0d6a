import { availableParallelism, freemem, totalmem } from 'node:os'
import type { Command } from 'commander'
import { findDevices } from '../../device.ts'
import { addJson, integer, type JsonFlag } from '../options.ts'
import { formatNumber, print, printJson } from '../output.ts'

interface Flags extends JsonFlag {
  readonly threads?: number
}

export function addDevices(program: Command): void {
  const command = program
    .command('devices')
    .description('what can compute here, in the order of preference, and how fast')
    .addOption(integer('--threads <n>', 'compute threads (default: the cores, 8 at most)', 1))
  addJson(command).action(async ({ threads, json }: Flags) => {
    const devices = await findDevices({ threads, measure: true })
    const machine = { cores: availableParallelism(), memory: totalmem(), freeMemory: freemem() }
    if (json) return printJson({ machine, devices })
    const gigabytes = (bytes: number) => `${formatNumber(bytes / 1e9)} GB`
    print(`${machine.cores} cores, ${gigabytes(machine.memory)} of memory, ${gigabytes(machine.freeMemory)} free`)
    for (const { name, available, reason, memoryLimit, speed } of devices) {
      print(`${available ? '✓' : '✗'} ${name.padEnd(10)} ${reason}`)
      const more = (text: string) => print(`  ${''.padEnd(10)} ${text}`)
      if (memoryLimit !== undefined && speed) {
        more(
          `${formatNumber(speed.gflops)} GFLOP/s in f32, reads ${formatNumber(speed.gigabytes)} GB/s of weights, holds ${gigabytes(memoryLimit)}`,
        )
        const { decode, prefill, training } = speed.tokensOfHalfBillion
        more(
          `a 0.5B model in q4, reckoned: ${formatNumber(decode)} tokens/s, ${formatNumber(prefill)} of a prompt, ${formatNumber(training)} training LoRA`,
        )
      }
    }
  })
}
