import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { writeTinyModel } from '../../examples/tiny-model.ts'
import { aliases, sftKeys } from '../../sdk/cli/keys.ts'
import { readConfig, type Settings } from '../../sdk/cli/settings.ts'
import { loadModel } from '../../sdk/load.ts'
import { sftConfig } from '../../sdk/train/config.ts'
import { SFTTrainer } from '../../sdk/train/sft.ts'
import { halfling } from './halfling.ts'

const example = 'examples/sft.yaml'
const folder = mkdtempSync(join(tmpdir(), 'halfling-sft-config-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** The settings of a config file's text, those behind a # too. */
function everyKey(text: string): Settings<typeof sftKeys> {
  const file = join(folder, 'every.yaml')
  writeFileSync(file, text.replace(/^#(?=\w+: )/gm, ''))
  return readConfig(file, sftKeys, aliases)
}

describe(example, () => {
  const text = readFileSync(example, 'utf8')

  it('is what --print-config prints', async () => {
    const flags = ['--data', 'rows.jsonl', '--output-dir', 'out']
    const printed = await halfling(['sft', ...flags, '--print-config'])
    expect(printed.code, printed.stderr).toBe(0)
    expect(
      text === printed.stdout,
      `old: npx tsx sdk/cli/bin.ts sft ${flags.join(' ')} --print-config > ${example}`,
    ).toBe(true)
  })

  it('sets what a run needs, and nothing else', () => {
    expect(readConfig(example, sftKeys, aliases)).toEqual({ data: 'rows.jsonl', outputDir: 'out' })
  })

  it('explains every key', () => {
    expect(Object.keys(everyKey(text)).sort()).toEqual(Object.keys(sftKeys).sort())
    const lines = text.split('\n')
    for (const [i, line] of lines.entries()) if (/^#?\w+: /.test(line)) expect(lines[i - 1], line).toMatch(/^# \w+/)
  })

  it('shows the values that hold without it', async () => {
    const shown = everyKey(text)
    const model = await loadModel('nano', { threads: 1 })
    const { args } = new SFTTrainer({ model, trainDataset: [], args: { outputDir: 'out' } })
    await model.close()
    const { columns, ...defaults } = Object.fromEntries(
      Object.keys(sftConfig).map((key) => [key, shown[key as keyof typeof sftConfig]]),
    )
    expect(args).toEqual(defaults)
    expect(columns).toEqual({ question: 'problem', answer: 'solution' })
  })

  it('runs, with the adapter that it shows', async () => {
    const model = join(folder, 'model')
    await writeTinyModel(model)
    const rows = join(folder, 'rows.jsonl')
    writeFileSync(rows, `${JSON.stringify({ question: 'What is 1 + 1?', answer: '2' })}\n`)
    const flags = ['--model', model, '--data', rows, '--output-dir', join(folder, 'out'), '--max-steps', '1']
    const { code, stderr } = await halfling(['sft', '--config', example, ...flags])
    expect(code, stderr).toBe(0)
    const written = JSON.parse(readFileSync(join(folder, 'out/adapter_config.json'), 'utf8'))
    const shown = everyKey(text)
    expect(written).toMatchObject({
      r: shown.loraR,
      lora_alpha: shown.loraAlpha,
      lora_dropout: shown.loraDropout,
      use_rslora: shown.useRslora,
      use_dora: shown.useDora,
    })
    expect(shown.loraTargetModules).toBe('all-linear')
    expect(written.target_modules).toHaveLength(7)
  })
})

it('settings survive --print-config and --config', async () => {
  const flags = ['--packing', '--learning-rate', '1e-3', '--columns', '{question: q}', '--no-completion-only-loss']
  const more = ['--lora-target-modules', 'q_proj', 'v_proj', '--save-total-limit', 'null', '--eval-strategy', 'no']
  const { stdout } = await halfling(['sft', ...flags, ...more, '--print-config'])
  const file = join(folder, 'printed.yaml')
  writeFileSync(file, stdout)
  expect(readConfig(file, sftKeys, aliases)).toEqual({
    packing: true,
    learningRate: 1e-3,
    columns: { question: 'q' },
    completionOnlyLoss: false,
    loraTargetModules: ['q_proj', 'v_proj'],
    saveTotalLimit: null,
    evalStrategy: 'no',
  })
})
