import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { grade } from '../sdk/answers/grade.ts'
import { readContent } from '../sdk/data/columns.ts'
import { readRows } from '../sdk/data/rows.ts'
import { rowTokenizer } from '../sdk/data/tokenize.ts'
import { describeModel, LanguageModel, loadAdapter, loadModel, quantizeModel } from '../sdk/index.ts'
import { parseConfig } from '../sdk/model/config.ts'
import { accuracyReward } from '../sdk/rewards/accuracy.ts'
import { loadChatTemplate, renderChat } from '../sdk/text/chat-template.ts'
import { loadTokenizer } from '../sdk/text/tokenizer.ts'
import { GRPOTrainer } from '../sdk/train/grpo.ts'
import { golden, readJson } from './text/golden.ts'

// Faults that users reported, as small inputs, each with what must come out: the README of its folder tells.

const folder = join(golden, '..', 'cases')
const at = (...path: string[]) => join(folder, ...path)
const isThere = existsSync(folder)
const grading = isThere ? readdirSync(folder).filter((name) => name.startsWith('grade-')) : []
const device = { device: 'wasm', threads: 1 } as const

describe.skipIf(!isThere)(`shared cases (needs ${folder})`, () => {
  it.each(grading)('%s', async (name) => {
    for (const { gold, text, equal } of readJson(at(name, 'cases.json')))
      expect((await grade(gold, text)).equal, JSON.stringify([gold, text])).toBe(equal)
  })

  /** What is scored of each row, and what is warned of. */
  async function scored(name: string, jinja?: string): Promise<{ texts: string[]; warnings: string[] }> {
    const lm = await loadModel('models/nano', device)
    const template = jinja && loadChatTemplate({}, readFileSync(at(name, jinja), 'utf8'))
    const warnings: string[] = []
    const warn = (message: string) => warnings.push(message)
    const tokenize = rowTokenizer(lm.tokenizer, template || lm.chatTemplate, { warn })
    const texts: string[] = []
    for await (const row of readRows(at(name, 'rows.jsonl')))
      texts.push(lm.tokenizer.decode(tokenize(row)!.labels.filter((id) => id >= 0)))
    await lm.close()
    return { texts, warnings }
  }

  it('sft-message-weight', async () => {
    const { texts } = await scored('sft-message-weight')
    expect(texts).toEqual(['good<|im_end|>\n', 'four<|im_end|>\n'])
  })

  it('sft-reasoning-dropped', async () => {
    const { warnings } = await scored('sft-reasoning-dropped', 'chat_template.jinja')
    expect(warnings.join()).toContain('throws away what the assistant says')
  })

  it('sft-template-adds-prompt', async () => {
    const { texts } = await scored('sft-template-adds-prompt', 'chat_template.jinja')
    expect(texts).toEqual(['6<|im_end|>\n'])
    const { warnings } = await scored('sft-template-adds-prompt', 'template-ignores-prompt.jinja')
    expect(warnings.join()).toContain("does not open the assistant's turn")
  })

  it('grpo-no-reward', async () => {
    const model = await loadModel('models/nano', device)
    const args = { outputDir: null, maxSteps: 2, maxCompletionLength: 8 }
    const trainDataset = at('grpo-no-reward', 'rows.jsonl')
    const warnings: string[] = []
    const onWarning = (message: string) => warnings.push(message)
    const trainer = new GRPOTrainer({ model, trainDataset, rewardFuncs: accuracyReward, args, onWarning })
    const steps: unknown[] = []
    const run = async () => {
      for await (const log of trainer.train()) steps.push(log)
    }
    await expect(run()).rejects.toThrow(/no completion has any reward \(accuracyReward: null/)
    if (steps.length > 0) expect(warnings[0]).toMatch(/^step 1: no completion has any reward/)
    await model.close()
  })

  it('peft-saved-embeddings', async () => {
    const lm = await loadModel(at('peft-saved-embeddings'), device)
    await loadAdapter(lm, at('peft-saved-embeddings', 'adapter'))
    expect(lm.model.activeAdapters).toEqual(['adapter'])
    const own = lm.model.adapters.get('adapter')!.tables
    expect(own.get('lm_head.weight')).toBe(own.get('model.embed_tokens.weight'))
    expect(own.get('lm_head.weight')).not.toEqual(await lm.model.readFloats('model.embed_tokens.weight'))
    await lm.close()
  })

  const tokenizers = ['byte-order-mark', 'digits', 'metaspace-never', 'split-next'].map((name) => `tokenizer-${name}`)
  it.each(tokenizers)('%s', (folder) => {
    const tokenizer = loadTokenizer(
      readJson(at(folder, 'tokenizer.json')),
      readJson(at(folder, 'tokenizer_config.json')),
    )
    for (const { text, ids, decoded } of readJson(at(folder, 'encode.json'))) {
      expect(tokenizer.encode(text), text).toEqual(ids)
      expect(tokenizer.decode(ids), text).toBe(decoded)
    }
  })

  it('numbers of any length', async () => {
    const expected = readFileSync(at('json-numbers', 'scored.txt'), 'utf8').trim().split('\n')
    for await (const row of readRows(at('json-numbers', 'rows.jsonl')))
      expect(readContent(row)).toMatchObject({ answer: expected[row.index] })
  })

  it.each([
    ['null-answer.jsonl', /null-answer.jsonl:1: column 'answer' is null/],
    ['pretty.json', /pretty.json:1: .*an element of an array/],
    ['null-content.jsonl', /message 1: it has no content \(null\)/],
  ])('%s says what is wrong', async (file, message) => {
    const read = async () => {
      for await (const row of readRows(at('errors-unclear', file))) readContent(row)
    }
    await expect(read()).rejects.toThrow(message)
  })

  it.each(['nan-column.jsonl', 'messages-as-text.jsonl'])('%s is read', async (file) => {
    for await (const row of readRows(at('errors-unclear', file))) expect(readContent(row).kind).toBeDefined()
  })

  it('an adapter of mlx-lm', async () => {
    await expect(describeModel(at('errors-unclear', 'adapter'))).rejects.toThrow('mlx-lm, not of PEFT')
  })

  it('rope_scaling beside rope_parameters', () => {
    const [both, one] = ['config.json', 'config-one-key.json'].map((file) =>
      parseConfig(readJson(at('config-two-rope-keys', file)), file),
    )
    expect(both).toEqual(one)
  })

  it.each([
    'safetensors-null-metadata',
    'gguf-special-ids/padding-minus-one.gguf',
    'gguf-special-ids/padding-past-the-end.gguf',
  ])('%s loads and generates', async (model) => {
    const warnings: string[] = []
    const lm = await loadModel(at(model), { onWarning: (text) => warnings.push(text) })
    const { tokenIds } = await LanguageModel.complete(lm.generate('a', { maxNewTokens: 2 }))
    expect(tokenIds.length).toBeGreaterThan(0)
    expect(warnings.length).toBe(model.endsWith('.gguf') ? 1 : 0)
    await lm.close()
  })

  it('a tokenizer that GGUF cannot hold is not written', async () => {
    const model = at('gguf-normalizer-round-trip')
    await expect(quantizeModel(model, join(tmpdir(), `cases-${process.pid}.gguf`), { dtype: 'f16' })).rejects.toThrow(
      'without NFC',
    )
  })

  it('a control token stops, parts are joined, a generation runs within another', async () => {
    const lm = await loadModel()
    const { prompt, options } = readJson(at('stop-control-token', 'request.json'))
    expect(await LanguageModel.complete(lm.generate(prompt, options))).toMatchObject({ text: '', finishReason: 'stop' })
    for (const { body, sameAs } of readJson(at('content-parts-server', 'requests.json')))
      if (sameAs) expect(lm.chatPrompt(body.messages)).toEqual(lm.chatPrompt(sameAs.messages))
      else expect(() => lm.chatPrompt(body.messages)).toThrow('image_url')
    const chat = lm.chat([{ role: 'user', content: 'Bo has 3 pens.' }], { temperature: 0, maxNewTokens: 4 })
    for await (const _ of chat)
      expect((await LanguageModel.complete(lm.generate('a', { maxNewTokens: 1 }))).tokenIds).toHaveLength(1)
    await lm.close()
  })

  const templates = ['template-operations', 'template-printed-values', 'template-strip-characters']
  it.each(templates)('%s', (folder) => {
    for (const { name, template, messages, expected } of readJson(at(folder, 'cases.json')))
      expect(renderChat(loadChatTemplate({ chat_template: template })!, messages), name).toBe(expected)
  })
})
