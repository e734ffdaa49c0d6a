import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { cli } from '../built.ts'

export interface Result {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly input?: string
  /** Sends Ctrl-C (or another signal) when this becomes true. */
  readonly interruptWhen?: () => boolean
  readonly signal?: NodeJS.Signals
}

/** Runs `halfling ...` in a process of its own. */
export function halfling(
  args: readonly string[],
  { input = '', interruptWhen, signal = 'SIGINT' }: RunOptions = {},
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...cli, ...args])
    let [stdout, stderr] = ['', '']
    child.stdout.on('data', (chunk) => {
      stdout += chunk
    })
    child.stderr.on('data', (chunk) => {
      stderr += chunk
    })
    child.on('error', reject)
    const watch = setInterval(() => {
      if (!interruptWhen?.()) return
      clearInterval(watch)
      child.kill(signal)
    }, 20)
    child.on('close', (code) => {
      clearInterval(watch)
      resolve({ code, stdout, stderr })
    })
    child.stdin.on('error', () => {})
    child.stdin.end(input)
  })
}

/** Runs it with --json: the one object on standard output, and the exit code. */
export async function halflingJson(args: readonly string[], options?: RunOptions) {
  const { code, stdout, stderr } = await halfling([...args, '--json'], options)
  const lines = stdout.split('\n')
  if (lines.length !== 2 || lines[1] !== '') throw new Error(`not one line on stdout: ${stdout}\n${stderr}`)
  return { code, stderr, value: JSON.parse(lines[0]) }
}

const golden = process.env.HALFLING_GOLDEN ?? '../shared/golden'
export const pebble = join(golden, '../models/pebble-7m-instruct')
export const pebbleGolden = join(golden, 'pebble-7m-instruct')
export const pebbleData = join(golden, '../data/pebble')
export const noPebble = existsSync(join(pebble, 'config.json')) ? false : `${pebble} is absent`
