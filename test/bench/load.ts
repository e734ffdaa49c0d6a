// From a GGUF file, warm in the page cache, to the first token of a short prompt: fresh processes on the built package (`npm run build`),
// and where FOLDER has node-llama-cpp in its node_modules in turns with it. With the memory that loading takes.
// `npx tsx test/bench/load.ts MODEL.gguf [FOLDER] [ROUNDS]`
import { execFileSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { median } from './median.ts'

const [file, folder = '', rounds = '5'] = process.argv.slice(2)
const [threads, prompt] = ['2', 'def add(a, b):']

type Result = Record<'load' | 'firstToken' | 'weightsMB' | 'largestMB' | 'residentMB' | 'peakMB', number>
const once = (script: string): Result => {
  const out = execFileSync(process.execPath, [`test/bench/${script}`, file, threads, prompt, folder], {
    encoding: 'utf8',
  })
  return JSON.parse(out.trim().split('\n').at(-1)!)
}
const [ours, theirs]: [Result[], Result[]] = [[], []]
// A first round warms the page cache.
for (let round = 0; round <= Number(rounds); round++) {
  const own = once('load-once.mjs')
  const other = folder === '' ? undefined : once('peers/llama-cpp-load.mjs')
  if (round === 0) continue
  ours.push(own)
  if (other) theirs.push(other)
}
const medianOf = (of: Result[], key: keyof Result): number => median(of.map((result) => result[key]))
const own = (key: keyof Result): number => medianOf(ours, key)
const seconds = (milliseconds: number): string => `${(milliseconds / 1000).toFixed(2)} s`

console.log(`${file}, ${threads} threads, medians of ${rounds}`)
console.log(`first token after ${seconds(own('firstToken'))}, the model loaded after ${seconds(own('load'))}`)
if (theirs.length > 0) {
  const [first, load] = [medianOf(theirs, 'firstToken'), medianOf(theirs, 'load')]
  const ratio = (own('firstToken') / first).toFixed(2)
  console.log(`node-llama-cpp: ${seconds(first)}, ${seconds(load)}; ours takes ${ratio}x (at most 2)`)
}
const fileMB = statSync(file).size / 2 ** 20
const [weights, resident, peak] = [own('weightsMB'), own('residentMB'), own('peakMB')]
console.log(`weights ${weights.toFixed(0)} MiB, ${(weights / fileMB).toFixed(3)}x the file`)
console.log(`resident beside them ${(resident - weights).toFixed(0)} MiB (at most 250 MB)`)
console.log(
  `peak while loading ${(peak - resident).toFixed(0)} MiB more (at most a tensor: the largest has ${own('largestMB').toFixed(0)})`,
)
