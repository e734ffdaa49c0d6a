import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { halfling, halflingJson, noPebble, pebble } from './halfling.ts'

const folder = mkdtempSync(join(tmpdir(), 'halfling-cli-eval-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const rows = join(folder, 'gsm8k.jsonl')
const questions = Array.from({ length: 300 }, (_, i) => {
  const [a, b] = [20 + (i % 70), 3 + (i % 17)]
  const answer = `${a} - ${b} = <<${a}-${b}=${a - b}>>${a - b}\n#### ${a - b}`
  return { question: `Mia has ${a} apples and gives ${b} to Tom. How many apples does Mia have now?`, answer }
})
writeFileSync(rows, questions.map((row) => `${JSON.stringify(row)}\n`).join(''))

const nano = ['eval', '--device', 'wasm', '--threads', '1', '--task', 'gsm8k', '--data', folder]
const results = (output: string) => readFileSync(join(output, 'results.json'), 'utf8')
const lines = (output: string): number => {
  const items = join(output, 'items.jsonl')
  return existsSync(items) ? readFileSync(items, 'utf8').split('\n').length - 1 : 0
}

describe('eval', () => {
  for (const [kind, flags] of [
    ['greedy', []],
    ['drawn', ['--num-samples', '2', '--temperature', '0.8']],
  ] as const)
    it(`goes on after kill -9 with the same results (${kind})`, async () => {
      const [whole, cut] = [join(folder, `whole-${kind}`), join(folder, `cut-${kind}`)]
      const { value } = await halflingJson([...nano, ...flags, '--output', whole])
      expect(value).toMatchObject({ n: 300, output: whole, settings: { task: 'gsm8k', model: 'nano', rows: 300 } })
      expect(value.accuracy).toBeGreaterThan(0.5)
      const interruptWhen = () => lines(cut) >= 20
      const killed = await halfling([...nano, ...flags, '--output', cut], { interruptWhen, signal: 'SIGKILL' })
      expect(killed.code).toBe(null)
      expect(existsSync(join(cut, 'results.json'))).toBe(false)
      const before = lines(cut)
      expect(before).toBeLessThan(300)
      const again = await halflingJson([...nano, ...flags, '--output', cut])
      expect(again.value).toEqual({ ...value, output: cut })
      expect(results(cut)).toBe(results(whole))
      expect(readdirSync(cut).sort()).toEqual(['items.jsonl', 'report.md', 'results.json', 'run.json'])
    })

  it('tells where it goes on after Ctrl-C', async () => {
    const output = join(folder, 'ctrl-c')
    const { code, value } = await halflingJson([...nano, '--output', output], {
      interruptWhen: () => lines(output) > 4,
    })
    expect(code).toBe(130)
    expect(value.error.message).toBe(`interrupted; the same command goes on in ${output}`)
  })

  it('prints the accuracy with its error, and writes a report', async () => {
    const output = join(folder, 'report')
    const { stdout } = await halfling([...nano, '--limit', '6', '--output', output])
    expect(stdout).toMatch(/^\d+\.\d% ± \d+\.\d \(\d of 6 right\)\n$/)
    const report = readFileSync(join(output, 'report.md'), 'utf8')
    expect(report).toMatch(/^# gsm8k: \d+\.\d% ± /)
    expect(report).toContain('| cut off | 0.0% of the answers |')
    expect(report).toContain('    Mia has')
  })

  it('prints pass@1, maj@n and pass@k of several samples', async () => {
    const { stdout } = await halfling([...nano, '--limit', '5', '--num-samples', '4', '--temperature', '1'])
    const names = stdout.split('\n').map((line) => line.split(/ {2,}|(?<=@\d) /)[0])
    expect(names).toEqual(['pass@1', 'maj@4', 'pass@2', 'pass@4', 'cut off', 'no answer found', 'mean length', ''])
  })

  it('refuses what does not fit together', async () => {
    const refusal = async (...args: string[]) => (await halfling(['eval', ...args])).stderr.trim()
    expect(await refusal()).toBe("error: one of '--task' and '--data' is needed")
    expect(await refusal('--task', 'gsm9k')).toMatch(/Allowed choices are gsm8k, math500, minerva/)
    expect(await refusal('--task', 'gsm8k', '--columns', '{question: q}')).toMatch(/a task knows its columns/)
    const output = join(folder, 'report')
    const again = await halfling([...nano, '--limit', '6', '--output', output, '--template', 'lighteval'])
    expect(again.stderr.trim()).toBe(
      `error: ${output}: holds a run with another template ("chat", now "lighteval"): give the same, or another output, or delete it`,
    )
  })
})

describe('eval-compare', () => {
  it('prints both, their difference and the rows that changed', async () => {
    const [a, b] = [join(folder, 'a'), join(folder, 'b')]
    await halfling([...nano, '--limit', '8', '--output', a])
    await halfling([...nano, '--limit', '8', '--output', b, '--max-new-tokens', '3'])
    const { stdout } = await halfling(['eval-compare', a, b])
    expect(stdout).toMatch(/\ndifference +-\d+\.\d ± \d+\.\d points, paired\n/)
    expect(stdout).toMatch(/McNemar\): 0 of 8 rows better, \d worse\n/)
    expect(stdout).toMatch(/differ in +maxNewTokens\n$/)
    const { value } = await halflingJson(['eval-compare', a, b])
    expect(value).toMatchObject({ n: 8, b: { mean: 0 }, better: [], settings: ['maxNewTokens'] })
    const { code, stderr } = await halfling(['eval-compare', a, join(folder, 'report')])
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/rows is 6, and in .* 8: only runs over the same questions/),
    ])
  })
})

describe.skipIf(noPebble !== false)('of the trained pebble', () => {
  it('gives the same answers twice, whatever the batch size', async () => {
    const gsm8k = ['eval', '--model', pebble, '--task', 'gsm8k', '--data', join(pebble, '../../data/gsm8k')]
    const answers = async (size: string) => {
      const output = join(folder, `pebble-${size}`)
      await halfling([...gsm8k, '--limit', '16', '--batch-size', size, '--device', 'wasm', '--output', output])
      return readFileSync(join(output, 'items.jsonl'), 'utf8')
    }
    expect(await answers('16')).toBe(await answers('5'))
  })
})
