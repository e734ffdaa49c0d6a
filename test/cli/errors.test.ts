import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writeTinyModel } from '../../examples/tiny-model.ts'
import { halfling, halflingJson } from './halfling.ts'

const folder = mkdtempSync(join(tmpdir(), 'halfling-errors-'))
const model = join(folder, 'model')
beforeAll(() => writeTinyModel(model))
afterAll(() => rmSync(folder, { recursive: true }))

/** Exit codes and messages, with the temporary folder taken out; standard output must be empty. */
async function refusals(...commands: string[][]): Promise<string> {
  const told: string[] = []
  for (const args of commands) {
    const { code, stdout, stderr } = await halfling(args)
    expect(stdout).toBe('')
    told.push(`${code} ${stderr.trim().replaceAll(folder, '<folder>')}`)
  }
  return told.join('\n')
}

describe('errors', () => {
  it('of usage: exit code 2', async () => {
    const all = await refusals(
      ['generate'],
      ['generate', '--model', 'm', '--top-kk', '3'],
      ['generate', '--model', 'm', '--threads', 'two'],
      ['chat', '--model', 'm', '--dtype', 'q5'],
      ['sft', '--model', 'm', '--output-dir', 'o'],
      ['score', '--model', 'm'],
      ['chatt'],
    )
    expect(all).toMatchInlineSnapshot(`
      "1 error: prompt: it has no tokens
      2 error: unknown option '--top-kk'
      (Did you mean --top-k?)
      2 error: option '--threads <n>' argument 'two' is invalid. It is not a whole number from 1.
      2 error: option '--dtype <type>' argument 'q5' is invalid. Allowed choices are auto, f32, f16, bf16, q8, q4a, q4.
      2 error: '--data' is missing (or data in the --config file)
      2 error: one of '--text', '--file' and '--data' is needed
      2 error: unknown command 'chatt'
      (Did you mean chat?)"
    `)
  })

  it('of input: exit code 1, one line, no stack', async () => {
    const bad = join(folder, 'bad.jsonl')
    writeFileSync(bad, '{"question": "a", "answer": "b"}\n{"question": \n')
    const config = join(folder, 'run.yaml')
    writeFileSync(config, 'model: m\nlerning_rate: 1\n')
    const all = await refusals(
      ['generate', '--model', join(folder, 'absent'), '--prompt', 'x'],
      ['generate', '--model', model, '--adapter', join(folder, 'absent'), '--prompt', 'x'],
      ['eval', '--model', model, '--data', bad],
      ['score', '--model', model, '--data', join(folder, 'absent.jsonl')],
      ['sft', '--config', config],
      ['sft', '--model', model, '--data', bad, '--output-dir', join(folder, 'out')],
      ['sft', '--model', model, '--data', bad, '--output-dir', 'o', '--full', '--lora-r', '4'],
      ['generate', '--model', model, '--prompt', 'x', '--temperature', '-1'],
    )
    expect(all).toMatchInlineSnapshot(`
      "1 error: <folder>/absent: no such model folder or file, nor a name on the hub (org/name), nor a bundled model (nano, nano-base)
      1 error: <folder>/absent: no such adapter folder, nor a name on the hub (org/name)
      1 error: <folder>/bad.jsonl:2: not valid JSON: Unexpected end of JSON input
      1 error: <folder>/absent.jsonl: no such file, and no dataset on the hub either (org/name, org/name:split or org/name/path/to/file.parquet)
      1 error: <folder>/run.yaml: unknown key 'lerning_rate'; did you mean learning_rate?
      1 error: <folder>/bad.jsonl:2: not valid JSON: Unexpected end of JSON input
      1 error: full fine-tuning has no adapter: leave loraR out
      1 error: temperature: -1 is not within 0 and 100"
    `)
  })

  it('are JSON with --json', async () => {
    const usage = await halflingJson(['generate', '--model', 'm', '--top-kk', '3'])
    const input = await halflingJson(['score', '--model', model, '--text', ''])
    expect(usage.code).toBe(2)
    expect(usage.value.error).toEqual({
      code: 'usage',
      message: "unknown option '--top-kk'\n(Did you mean --top-k?)",
    })
    expect(input.code).toBe(1)
    expect(input.value.error).toEqual({
      code: 'data',
      message: 'text: it has fewer than two tokens, so none is scored',
    })
  })
})

it('--help and --version are no errors', async () => {
  const [help, version] = await Promise.all([halfling(['sft', '--help']), halfling(['--version'])])
  expect([help.code, version.code]).toEqual([0, 0])
  expect(help.stdout).toContain('--learning-rate <value>')
  expect(version.stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
})
