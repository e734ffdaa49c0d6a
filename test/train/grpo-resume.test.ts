import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'

/** Runs the script; kills it with SIGKILL at the `nth` line that matches `at`. */
function run(outputDir: string, mode: 'fresh' | 'resume', at?: RegExp, nth = 1): Promise<number | null> {
  const args = ['--import', 'tsx', 'test/train/grpo-run.ts', outputDir, mode]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  let seen = 0
  child.stdout.setEncoding('utf8')
  child.stdout.on('data', (text: string) => {
    for (const line of text.split('\n')) if (at?.test(line) && ++seen === nth) child.kill('SIGKILL')
  })
  return new Promise((resolve) => child.on('exit', (code) => resolve(code)))
}

const metrics = (folder: string) =>
  readFileSync(join(folder, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => ({ ...JSON.parse(line), tokensPerSecond: undefined }))

it('killed while drawing, while updating and between: the log and the result equal an uninterrupted run', async () => {
  const [whole, cut] = [mkdtempSync(join(tmpdir(), 'halfling-')), mkdtempSync(join(tmpdir(), 'halfling-'))]
  expect(await run(whole, 'fresh')).toBe(0)
  expect(await run(cut, 'resume', /^step 4$/)).toBe(null) // checkpoint 3 is in the middle of a batch
  expect(await run(cut, 'resume', /^rollouts/, 20)).toBe(null)
  expect(await run(cut, 'resume', /^step 7$/)).toBe(null)
  expect(await run(cut, 'resume')).toBe(0)
  expect(metrics(whole).filter((line) => 'loss' in line)).toHaveLength(12)
  expect(metrics(cut)).toEqual(metrics(whole))
  const adapter = (folder: string) => readFileSync(join(folder, 'adapter_model.safetensors'))
  expect(adapter(cut).equals(adapter(whole))).toBe(true)
})
