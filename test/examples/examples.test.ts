import { spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeProblem } from '../../examples/nano/problems.ts'

// Every example as a person runs it, on the built-in model.

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halfling-examples-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

async function run(example: string, args: readonly string[] = [], input = ''): Promise<string> {
  const child = spawn('npx', ['tsx', `examples/${example}.ts`, ...args], { stdio: ['pipe', 'pipe', 'pipe'] })
  let [out, errors] = ['', '']
  child.stdout.on('data', (chunk) => (out += chunk))
  child.stderr.on('data', (chunk) => (errors += chunk))
  child.stdin.end(input)
  const code = await new Promise((resolve) => child.on('close', resolve))
  expect(code, errors).toBe(0)
  return out
}

const percents = (text: string, pattern: RegExp): number[] =>
  [...text.matchAll(pattern)].map((match) => Number(match[1]))

const rows = (seed: number, count: number): string =>
  Array.from({ length: count }, (_, i) => JSON.stringify(makeProblem('backward', seed, i))).join('\n')

describe('examples', () => {
  it('chat: lines in, answers out, the conversation goes on', async () => {
    const out = await run('chat', [], 'What is 17 + 25?\nHello!\n')
    const [, first, second] = out.split('> ')
    expect(first).toContain('<answer>42</answer>')
    expect(second).toContain('Halfling-nano')
  })

  it('finetune-laptop: own rows in, an adapter out, more right than before', async () => {
    const [train, test] = [join(folder, 'train.jsonl'), join(folder, 'test.jsonl')]
    await writeFile(train, rows(6, 800))
    await writeFile(test, rows(7, 60))
    const out = await run('finetune-laptop', [train, test, join(folder, 'adapter')])
    const [before, after] = percents(out, /(?:before|after): ([\d.]+)%/g)
    expect(after).toBeGreaterThan(before + 15)
  })

  it('demo: at least 30 points more on held-out problems', { timeout: 600_000 }, async () => {
    const start = performance.now()
    const out = await run('demo')
    console.log(out, `${((performance.now() - start) / 1000).toFixed(0)} s`)
    const [before, after] = percents(out, /(?:before|after): (\d+)%/g)
    expect(after - before).toBeGreaterThanOrEqual(30)
    expect(out).toMatch(/loss\n +\d\.\d\d │/)
  })
})
