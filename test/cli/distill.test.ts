import { existsSync, mkdtempSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { makeProblem } from '../../examples/nano/problems.ts'
import { halfling, halflingJson } from './halfling.ts'

const folder = mkdtempSync(join(tmpdir(), 'halfling-distill-cli-'))
afterAll(() => rm(folder, { recursive: true, force: true }))

const data = join(folder, 'rows.jsonl')
const problems = Array.from({ length: 400 }, (_, i) => JSON.stringify(makeProblem('backward', 21, i)))
writeFileSync(data, problems.join('\n'))
const build = (output: string) => ['teacher', 'build', '--data', data, '--output', output, '--shard-rows', '40']
const whole = join(folder, 'whole')

describe('halfling teacher', () => {
  it('builds a cache, says what is in it, and finds what is torn', async () => {
    const { value } = await halflingJson(build(whole))
    expect(value).toMatchObject({ method: 'topk', k: 16, rows: 400, model: 'nano', temperature: 1 })
    expect(value.bytesPerToken).toBeLessThan(66)
    expect((await halflingJson(['teacher', 'info', whole])).value).toEqual(value)
    expect((await halflingJson(['teacher', 'verify', whole])).value).toEqual({ folder: whole, shards: 10, torn: [] })
  })

  it('killed in the middle, the same command goes on and ends with the same bytes', async () => {
    const killed = join(folder, 'killed')
    const { code } = await halfling(build(killed), {
      interruptWhen: () => existsSync(join(killed, 'shard-00002.safetensors')),
      signal: 'SIGKILL',
    })
    expect(code).toBe(null)
    expect(existsSync(join(killed, 'shard-00009.safetensors'))).toBe(false)
    const early = await halfling(['teacher', 'info', killed])
    expect([early.code, early.stderr]).toEqual([1, expect.stringContaining('shards are not built yet')])
    await halflingJson(build(killed))
    truncateSync(join(killed, 'shard-00004.safetensors'), 100)
    const torn = await halfling(['teacher', 'verify', killed])
    expect([torn.code, torn.stderr]).toEqual([1, expect.stringContaining('shards 4 are torn or missing')])
    await halflingJson(build(killed))
    const files = readdirSync(whole).sort()
    expect(
      readdirSync(killed)
        .sort()
        .filter((name) => !name.endsWith('.tmp')),
    ).toEqual(files)
    for (const name of files)
      expect(readFileSync(join(killed, name)).equals(readFileSync(join(whole, name))), name).toBe(true)
  })

  it('traces are right answers, as rows', async () => {
    const output = join(folder, 'traces.jsonl')
    const few = join(folder, 'few.jsonl')
    writeFileSync(few, problems.slice(0, 24).join('\n'))
    const { value } = await halflingJson(['teacher', 'build', '--method', 'traces', '--data', few, '--output', output])
    const rows = readFileSync(output, 'utf8').trim().split('\n')
    expect(value).toEqual({ output, questions: 24, kept: rows.length })
    expect(rows.length).toBeGreaterThan(3)
    expect(JSON.parse(rows[0]).messages[1].content).toMatch(/<answer>\d+<\/answer>/)
  })
})

describe('halfling distill', () => {
  it('trains on a cache, with the keys of a file, and refuses what does not fit', async () => {
    const config = join(folder, 'distill.yaml')
    writeFileSync(
      config,
      `teacher: ${whole}\ndata: ${data}\noutput_dir: ${join(folder, 'out')}\nmax_steps: 3\nlearning_rate: 1e-3\nlora_r: 4\nalpha: 0.2\n`,
    )
    const { value, code } = await halflingJson(['distill', '--config', config])
    expect([code, value.step]).toEqual([0, 3])
    expect(value.loss).toBeGreaterThan(0)
    expect(existsSync(join(folder, 'out/adapter_model.safetensors'))).toBe(true)
    const flags = ['distill', '--config', config, '--output-dir', join(folder, 'other')]
    for (const [extra, message] of [
      [['--temperature', '2'], 'was built at 1'],
      [['--no-completion-only-loss'], 'use the same file, chat template, maxLength and masking'],
      [['--lmbda', '0.5'], 'has the student answer itself'],
      [['--beta', '2'], "option '--beta': 2 is not a number from 0 to 1"],
    ] as const) {
      const { stderr, code } = await halfling([...flags, ...extra])
      expect(code).toBeGreaterThan(0)
      expect(stderr).toContain(message)
    }
    const unknown = join(folder, 'unknown.yaml')
    writeFileSync(unknown, 'techer: x\n')
    const { stderr } = await halfling(['distill', '--config', unknown])
    expect(stderr).toContain("unknown key 'techer'; did you mean teacher?")
  })

  it('learns from a live teacher', async () => {
    const args = [
      '--teacher',
      'nano',
      '--data',
      data,
      '--output-dir',
      join(folder, 'live'),
      '--max-steps',
      '2',
      '--lora-r',
      '4',
    ]
    const { value } = await halflingJson(['distill', ...args])
    expect(value.step).toBe(2)
    // The student is the teacher: all that they disagree on is rounding.
    expect(value.loss).toBeLessThan(1e-3)
  })
})
