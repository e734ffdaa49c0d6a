// Decoding, prompts of 128 and sixteen sequences at once on a real file, on wasm and cpu: fresh processes on the built package (`npm run build`), in turns with
// node-llama-cpp where FOLDER has it in its node_modules; medians. `npx tsx test/bench/speed.ts MODEL.gguf [FOLDER] [ROUNDS] [NODE...]`,
// where NODE are binaries of Node other than this one.
import { execFileSync } from 'node:child_process'
import { basename } from 'node:path'
import { median } from './median.ts'

const [file, folder = '', rounds = '5', ...nodes] = process.argv.slice(2)
const threads = '2'

type Result = Partial<Record<'prefill' | 'decode' | 'decode16', number>>
/** `of`: a device of ours, or the peer's folder. */
const once = (node: string, script: string, of: string): Result => {
  const out = execFileSync(node, [`test/bench/${script}`, file, threads, of], { encoding: 'utf8' })
  return JSON.parse(out.trim().split('\n').at(-1)!)
}
const runs = [
  ...(folder === '' ? [] : [[process.execPath, 'peers/llama-cpp-speed.mjs', folder] as const]),
  ...[process.execPath, ...nodes].flatMap((node) =>
    ['wasm', 'cpu'].map((device) => [node, 'speed-once.mjs', device] as const),
  ),
].map(([node, script, of]) => ({ node, script, of, results: [] as Result[] }))
for (let round = 0; round < Number(rounds); round++)
  for (const { node, script, of, results } of runs) results.push(once(node, script, of))

const medianOf = (of: Result[], key: keyof Result): number => median(of.map((result) => result[key] ?? Number.NaN))
console.log(`${basename(file)}, ${threads} threads, medians of ${rounds}, tokens/s`)
for (const { node, script, of, results } of runs) {
  const name = script.startsWith('peers')
    ? 'node-llama-cpp'
    : `${of}, Node ${execFileSync(node, ['-v'], { encoding: 'utf8' }).trim()}`
  const speeds = (['decode', 'prefill', 'decode16'] as const).map((key) => {
    const [own, peer] = [medianOf(results, key), medianOf(runs[0].results, key)]
    return `${key} ${own.toFixed(1)}${folder !== '' && peer > 0 ? ` (${(own / peer).toFixed(2)}x)` : ''}`
  })
  console.log(`${name.padEnd(20)} ${speeds.join(', ')}`)
}
