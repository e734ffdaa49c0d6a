import type { Command } from 'commander'
import { findDevices } from '../../device.ts'
import { addJson, type JsonFlag } from '../options.ts'
import { print, printJson } from '../output.ts'

export function addDevices(program: Command): void {
  const command = program.command('devices').description('what can compute here, in the order of preference')
  addJson(command).action(async ({ json }: JsonFlag) => {
    const devices = await findDevices()
    if (json) return printJson({ devices })
    for (const { name, available, reason } of devices) print(`${available ? '✓' : '✗'} ${name.padEnd(10)} ${reason}`)
  })
}
