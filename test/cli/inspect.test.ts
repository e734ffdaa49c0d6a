import { mkdtempSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { loadModel, quantizeModel, SFTTrainer } from '../../sdk/index.ts'
import { halfling, halflingJson } from './halfling.ts'

const folder = mkdtempSync(join(tmpdir(), 'halfling-inspect-'))
afterAll(() => rm(folder, { recursive: true, force: true }))

const rows = [
  { question: 'What is 2 + 3?', answer: '5' },
  { question: 'What is 2 + 3?', answer: '5' },
  { question: 'What is 20 + 30?', answer: '50', solution: '20 + 30 = 50.' },
  { question: 'What is 1 + 1?' },
]
const data = join(folder, 'rows.jsonl')
writeFileSync(data, rows.map((row) => JSON.stringify(row)).join('\n'))

describe('halfling inspect', () => {
  it('shows what is scored, lengths, and what is wrong', async () => {
    const { code, stdout } = await halfling(['inspect', '--data', data, '--rows', '1', '--max-length', '40'])
    expect(code).toBe(0)
    expect(stdout.replaceAll(folder, '<folder>')).toMatchInlineSnapshot(`
      "row 0: 26 tokens, 3 scored
      <|im_start|>user
      What is 2 + 3?<|im_end|>
      <|im_start|>assistant
      [[5<|im_end|>
      ]]

      4 rows (question 3), 92 tokens
      scored: 21, 23% of them
      tokens a row: 26 to 46, half of them up to 26, nine of ten up to 46
        26-28 ████████████████████████████████████████ 2
        29-31  0
        32-34  0
        35-37  0
        38-40  0
        41-43  0
        44-46 ████████████████████ 1
      warning: 1 row longer than maxLength 40: they lose their end
      warning: 1 row cannot be used, and training stops at the first:
        <folder>/rows.jsonl:4: its columns are question; wanted: messages (with tools), prompt + completion, text, question + answer (with solution). Columns of other names are mapped with columns, as {question: 'q', answer: 'solution'}
      warning: 1 row is said by an earlier row (<folder>/rows.jsonl:2)
      "
    `)
  })

  it('is JSON with --json: numbers, token ids, masks', async () => {
    const { value } = await halflingJson(['inspect', '--data', data, '--rows', '2', '--packing', '--max-length', '64'])
    expect(value).toMatchObject({ rows: 4, refused: 1, kinds: { question: 3 }, tooLong: 0, packed: { bins: 2 } })
    expect(value.examples).toHaveLength(2)
    const [{ inputIds, labels }] = value.examples
    const scored = labels.filter((label: number) => label !== -100)
    expect(scored).toEqual(inputIds.slice(-scored.length))
    expect(value.lengths.max).toBeGreaterThan(value.lengths.min)
  })

  it('warns of empty completions, doubled tokens, control characters', async () => {
    const odd = join(folder, 'odd.jsonl')
    const completions = ['', 'a<|im_end|>', 'b\u0007', 'fine']
    writeFileSync(odd, completions.map((completion) => JSON.stringify({ prompt: 'Say:\n', completion })).join('\n'))
    writeFileSync(odd, `\n${JSON.stringify({ question: 'q', answer: 'b<|im_end|>' })}`, { flag: 'a' })
    const { value } = await halflingJson(['inspect', '--data', odd])
    expect(value.warnings).toEqual([
      `1 row is without a word that is scored: an empty completion (${odd}:1)`,
      `1 row is with control characters or U+FFFD, which broken encodings leave (${odd}:3)`,
      `1 row is with <|im_end|> twice in a row (${odd}:5)`,
    ])
  })

  it('takes a training run as its config', async () => {
    const config = join(folder, 'run.yaml')
    writeFileSync(config, `data: ${data}\noutput_dir: out\nlearning_rate: 1e-3\ncompletion_only_loss: false\n`)
    const { value } = await halflingJson(['inspect', '--config', config])
    expect(value.scoredTokens).toBe(value.tokens - 3)
  })

  it('needs data or a model', async () => {
    const { code, stderr } = await halfling(['inspect'])
    expect([code, stderr]).toEqual([2, "error: a model's name or '--data' is missing (or data in the --config file)\n"])
  })
})

describe('halfling inspect MODEL', () => {
  it('tells what a model is, what it takes, and its speed here', async () => {
    const { code, stdout } = await halfling(['inspect', 'nano', '--threads', '1', '--device', 'wasm'])
    expect(code).toBe(0)
    expect(stdout.replace(/ +[\d.,]+ tokens\/s/g, ' <speed>').replace(/ +wasm/, ' wasm')).toMatchInlineSnapshot(`
      "model          nano
      architecture   qwen2: 6 layers of 128, 4 heads of 32, 2 for keys and values, vocabulary 768
      parameters     1,281,152
      context        1,024 tokens
      stored as      Q8_0  42 tensors   1.3 MB   opens as q8
                     F16     1 tensor   197 kB  opens as f16
                     F32   31 tensors  12.8 kB  opens as f32
      chat template  yes; before a first message it puts "<|im_start|>user\\n"
      system text    none
      end tokens     <|im_end|> (763), <|endoftext|> (761)
      in memory      dtype      weights  + 1,024 tokens wasm, up to
                     as stored   1.5 MB          4.6 MB <speed>
                     f32         5.1 MB          8.3 MB <speed>
                     f16         2.6 MB          5.7 MB <speed>
                     bf16        2.6 MB          5.7 MB <speed>
                     q8          1.4 MB          4.5 MB <speed>
                     q4a         855 kB            4 MB <speed>
                     q4          781 kB          3.9 MB <speed>
      "
    `)
  })

  it('is JSON with --json: the same from a .gguf file, which says more', async () => {
    const file = join(folder, 'nano.gguf')
    await quantizeModel('nano', file, { dtype: 'q8' })
    const { value } = await halflingJson(['inspect', file, '--threads', '1', '--device', 'wasm'])
    expect(value).toMatchObject({ kind: 'model', name: file, contextLength: 1024, hasChatTemplate: true })
    const { value: own } = await halflingJson(['inspect', '--model', 'nano', '--threads', '1', '--device', 'wasm'])
    expect(value.parameters).toBe(own.parameters)
    expect(value.endTokens).toEqual(own.endTokens)
    expect(value.types.map(({ stored }: { stored: string }) => stored)).toEqual(['Q8_0', 'F32'])
    const [asStored, ...others] = value.forecasts
    expect(asStored.weightBytes).toBe(others.find(({ dtype }: { dtype: string }) => dtype === 'q8').weightBytes)
    for (const { decode } of value.forecasts) expect(decode).toBeGreaterThan(10)
  })

  it('tells what an adapter is', async () => {
    const out = join(folder, 'adapter')
    const lm = await loadModel('nano', { threads: 1 })
    const peft = { r: 4, loraAlpha: 8, targetModules: ['q_proj', 'v_proj'], useRslora: true }
    const args = { outputDir: out, maxSteps: 1, saveStrategy: 'no' } as const
    for await (const _ of new SFTTrainer({ model: lm, trainDataset: [rows[0]], peft, args }).train());
    await lm.close()
    const { code, stdout } = await halfling(['inspect', out])
    expect(code).toBe(0)
    expect(stdout.replaceAll(folder, '<folder>')).toMatchInlineSnapshot(`
      "adapter        <folder>/adapter: LoRA, rsLoRA scale
      base model     not told
      rank           4
      alpha          8
      targets        q_proj (6), v_proj (6)
      parameters     10,752
      "
    `)
  })

  it('a file that is none, or is not there, is named', async () => {
    const file = join(folder, 'none.gguf')
    writeFileSync(file, 'hello')
    const { code, stderr } = await halfling(['inspect', file])
    expect([code, stderr]).toEqual([1, `error: ${file}: is not a GGUF file\n`])
    expect((await halfling(['inspect', 'nowhere.gguf'])).stderr).toContain('no such model folder or file')
  })
})
