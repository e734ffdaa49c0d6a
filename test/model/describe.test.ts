import { describe, expect, it } from 'vitest'
import { openModel } from '../../sdk/formats/stored-model.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { describeOpened } from '../../sdk/model/describe.ts'
import { snapshotFiles } from '../../sdk/model/write.ts'
import { predictDecode } from '../../sdk/speed.ts'
import { memoryStore } from '../../sdk/store/memory.ts'
import { writeFiles } from '../../sdk/store/store.ts'
import { textChunks } from '../../sdk/store/text.ts'
import { loadChatTemplate } from '../../sdk/text/chat-template.ts'
import { loadTokenizer } from '../../sdk/text/tokenizer.ts'
import { tinySource } from '../formats/tiny-source.ts'

function described(chatTemplate: string | null, changes = {}) {
  const stored = { ...tinySource(changes), chatTemplate }
  const config = parseConfig(stored.config, 'tiny')
  const tokenizer = loadTokenizer(stored.tokenizerJson, stored.tokenizerConfig)
  const template = loadChatTemplate({}, chatTemplate ?? undefined)
  return describeOpened('tiny', { stored, config, tokenizer, template, eosTokenIds: new Set([1]) })
}

/** ChatML that gives a system message of its own where none is given. */
const chatml = (given: string) =>
  `${given}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}`

describe('what a template says by itself', () => {
  const qwen = chatml(
    `{% if messages[0].role != 'system' %}<|im_start|>system\nYou are "Tiny".\nBe kind.<|im_end|>\n{% endif %}`,
  )
  it.each([
    ['a system message', qwen, 'You are "Tiny".\nBe kind.'],
    ['none', chatml(''), null],
    [
      'it refuses system messages',
      `{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}${chatml('')}`,
      null,
    ],
    ['it is broken', '{% for', null],
    ['it leaves the message out', 'hello', null],
  ])('%s', (_, template, text) => {
    expect(described(template)).toMatchObject({ hasChatTemplate: true, defaultSystem: text })
  })
  it('the opening is what stands before the first message', () => {
    expect(described(qwen).opening).toBe('<|im_start|>system\nYou are "Tiny".\nBe kind.<|im_end|>\n<|im_start|>user\n')
    expect(described(null)).toMatchObject({ hasChatTemplate: false, opening: null, defaultSystem: null })
  })
})

describe('memory and speed', () => {
  it('weights by what they are stored as, bytes in each dtype, the cache of a conversation', () => {
    const { config, types, forecasts, parameters } = described(null, { tie_word_embeddings: false })
    const { numHiddenLayers, numKeyValueHeads, headDim, maxPositionEmbeddings, vocabSize, hiddenSize } = config
    const vectors = types.find(({ dtype }) => dtype === 'f32')!
    const matrices = types.find(({ dtype }) => dtype === 'bf16')!
    expect([vectors.stored, matrices.stored, types.length]).toEqual(['BF16', 'BF16', 2])
    expect(vectors.bytes + matrices.bytes).toBe(2 * parameters)
    const by = (dtype: string) => forecasts.find((f) => f.dtype === dtype)!
    expect(by('f32').weightBytes).toBe(4 * parameters)
    expect(by('auto').weightBytes).toBe(2 * vectors.bytes + matrices.bytes)
    expect(by('f32').cacheTokens).toBe(Math.min(4096, maxPositionEmbeddings))
    expect(by('f32').cacheBytes).toBe(2 * numHiddenLayers * numKeyValueHeads * headDim * 4 * by('f32').cacheTokens)
    // The table that embeds is not read whole.
    expect(by('f32').reads).toEqual({ f32: 4 * (parameters - vocabSize * hiddenSize) })
    const gigabytes = { f32: 2, f16: 1, bf16: 1, q8: 1, q4a: 1, q4: 1 }
    expect(predictDecode({ gigabytes }, by('f32'))).toBeCloseTo(2e9 / by('f32').reads.f32!, 6)
    expect(predictDecode({ gigabytes }, { reads: { f32: 1e9, q8: 5e8 } })).toBeCloseTo(1, 9)
  })
})

describe('the licence of a folder', () => {
  it.each([
    [{ 'README.md': '---\ntags: [a]\nlicense: apache-2.0\n---\n# A\n', LICENSE: 'MIT License\n' }, 'apache-2.0'],
    [{ 'README.md': '---\nlicense: other\nlicense_name: "llama3.2"\n---\n' }, 'llama3.2'],
    [{ 'README.md': 'license: none of a head\n', LICENSE: '\n  Apache License\n Version 2.0' }, 'Apache License'],
    [{}, null],
  ])('%j', async (files, license) => {
    const store = memoryStore()
    await writeFiles(store, snapshotFiles(tinySource(), { dtype: 'f32' }))
    for (const [name, text] of Object.entries(files)) await store.write(name, textChunks(text as string))
    expect((await openModel(store)).license).toBe(license)
  })
})
