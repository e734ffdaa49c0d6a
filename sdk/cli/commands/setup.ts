import { spawnSync } from 'node:child_process'
import { type Command, Option } from 'commander'
import { HalflingError, OptionError } from '../../errors.ts'
import { addJson, type JsonFlag } from '../options.ts'
import { print, printJson } from '../output.ts'

/** What a device needs beside this package. CUDA's libraries, some hundred megabytes, are no part of cpu. */
const packages = { cpu: ['onnxruntime-node', 'koffi'], webgpu: ['webgpu'] } as const
const environment = { ONNXRUNTIME_NODE_INSTALL: 'skip' }

interface Flags extends JsonFlag {
  readonly run?: boolean
}

export function addSetup(program: Command): void {
  const command = program
    .command('setup')
    .description('prints what a device needs to be installed, or installs it with npm')
    .argument('<device>', 'cpu or webgpu')
    .addOption(new Option('--run', 'install it in this folder'))
  addJson(command).action((device: string, { run, json }: Flags) => {
    if (!Object.hasOwn(packages, device))
      throw new OptionError(`setup: "${device}" is not one of ${Object.keys(packages).join(', ')}`)
    const names = packages[device as keyof typeof packages]
    const shown = Object.entries(environment).map(([name, value]) => `${name}=${value}`)
    const line = [...(device === 'cpu' ? shown : []), 'npm install', ...names].join(' ')
    if (!run) return json ? printJson({ device, command: line }) : print(line)
    const { status } = spawnSync('npm', ['install', ...names], {
      env: { ...process.env, ...environment },
      stdio: ['ignore', process.stderr, process.stderr],
      shell: process.platform === 'win32',
    })
    if (status !== 0) throw new HalflingError('io', `npm install ended with ${status}: see above`)
    if (json) return printJson({ device, command: line, installed: true })
    print(`${device}: ${names.join(', ')} installed; halfling devices says what they do here`)
  })
}
