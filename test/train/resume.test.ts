import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

const steps = 24

/** Runs the training script; kills it with SIGKILL once it has reported `killAt`. */
type What = readonly [what: string, device: string]
function run(outputDir: string, mode: 'fresh' | 'resume', what: What, killAt?: number): Promise<number | null> {
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', 'test/train/resume-run.ts', outputDir, String(steps), mode, ...what],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  child.stdout.setEncoding('utf8')
  child.stdout.on('data', (text: string) => {
    const reached = [...text.matchAll(/step (\d+)/g)].some(([, step]) => killAt !== undefined && Number(step) >= killAt)
    if (reached) child.kill('SIGKILL')
  })
  return new Promise((resolve) => child.on('exit', (code) => resolve(code)))
}

const metrics = (folder: string) =>
  readFileSync(join(folder, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => ({ ...JSON.parse(line), tokensPerSecond: undefined }))

describe('kill -9 and resume', () => {
  for (const [what, file] of [
    [['lora', 'wasm'], 'adapter_model.safetensors'],
    [['full', 'wasm'], 'model.safetensors'],
    [['lora', 'cpu'], 'adapter_model.safetensors'],
    [['full', 'cpu'], 'model.safetensors'],
  ] as const)
    it(`${what.join(' on ')}: the log and the result equal an uninterrupted run's`, async () => {
      const whole = mkdtempSync(join(tmpdir(), 'halfling-'))
      const cut = mkdtempSync(join(tmpdir(), 'halfling-'))
      expect(await run(whole, 'fresh', what)).toBe(0)
      expect(await run(cut, 'resume', what, 9)).toBe(null) // nothing to resume from: starts
      expect(existsSync(join(cut, file))).toBe(false)
      expect(await run(cut, 'resume', what, 18)).toBe(null)
      expect(await run(cut, 'resume', what)).toBe(0)
      expect(metrics(cut)).toEqual(metrics(whole))
      expect(readFileSync(join(cut, file)).equals(readFileSync(join(whole, file)))).toBe(true)
      const checkpoints = readdirSync(cut).filter((name) => name.startsWith('checkpoint-'))
      expect(checkpoints.sort()).toEqual(['checkpoint-20', 'checkpoint-24'])
    })
})
