// `npm run bench`: the floors that the project holds itself to, with what this machine does now. Takes about five minutes.
import { execFileSync } from 'node:child_process'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { makeQwenShape } from './qwen-shape.ts'

const folder = join(tmpdir(), 'halfling-qwen-shape')
await makeQwenShape(folder)
const run = (script: string, ...args: string[]) =>
  execFileSync(process.execPath, ['--import', 'tsx', `test/bench/${script}`, ...args], { encoding: 'utf8' })
const halfBillion = (threads: number, what: string): Record<string, number> =>
  JSON.parse(run('half-billion.ts', folder, String(threads), what).trim().split('\n').at(-1)!)

console.log(
  `${cpus()[0].model}, ${cpus().length} cores, Node ${process.version}, ${new Date().toISOString().slice(0, 10)}\n`,
)
const gemm = run('gemm.ts')
console.log(gemm)
const gflops = (threads: number) =>
  Number(new RegExp(`^${threads} threads +linear 128x896 by f32.* ([\\d.]+) GFLOP/s`, 'm').exec(gemm)![1])
const [one, two] = [halfBillion(1, 'speed'), halfBillion(2, 'speed')]
const memory = halfBillion(2, 'memory')
const { rollouts } = halfBillion(2, 'rollouts')

interface Line {
  what: string
  value: number
  floor: number
  unit: string
  atMost?: boolean
}
const lines: Line[] = [
  { what: 'f32 GEMM 128x896x4864, 1 thread', value: gflops(1), floor: 30, unit: 'GFLOP/s' },
  { what: 'f32 GEMM, 2 threads over 1', value: gflops(2) / gflops(1), floor: 1.7, unit: 'x' },
  { what: '0.5B q4 decode, 2 threads', value: two.decode, floor: 15, unit: 'tokens/s' },
  { what: '0.5B q4 decode, 2 threads over 1', value: two.decode / one.decode, floor: 1.7, unit: 'x' },
  { what: '0.5B q4 decode of 16 rollouts, prompt included', value: rollouts, floor: 40, unit: 'tokens/s' },
  { what: '0.5B q4 prefill of 128, 2 threads', value: two.prefill, floor: 60, unit: 'tokens/s' },
  { what: '0.5B q4 prefill, 2 threads over 1', value: two.prefill / one.prefill, floor: 1.7, unit: 'x' },
  { what: '0.5B q4 LoRA step of 512, 2 threads', value: two.train, floor: 18, unit: 'tokens/s' },
  { what: '0.5B q4 LoRA step, 2 threads over 1', value: two.train / one.train, floor: 1.7, unit: 'x' },
  { what: '0.5B q4 LoRA step + 32 tokens, peak memory', value: memory.peakMB, floor: 1500, unit: 'MB', atMost: true },
  { what: '0.5B q4 LoRA step, forecast', value: memory.forecastMB, floor: 1500, unit: 'MB', atMost: true },
]
let missed = 0
for (const { what, value, floor, unit, atMost } of lines) {
  const holds = atMost ? value <= floor : value >= floor
  if (!holds) missed++
  const bound = `${atMost ? 'at most' : 'at least'} ${floor}`
  console.log(
    `${holds ? 'holds ' : 'MISSED'}  ${what.padEnd(46)} ${value.toFixed(value < 10 ? 2 : 1).padStart(8)} ${unit.padEnd(9)} (${bound})`,
  )
}
process.exit(missed > 0 ? 1 : 0)
