import { mkdtempSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
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

  it('needs data', async () => {
    const { code, stderr } = await halfling(['inspect'])
    expect([code, stderr]).toEqual([2, "error: '--data' is missing (or data in the --config file)\n"])
  })
})
