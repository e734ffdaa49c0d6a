import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { FormatError } from '../../sdk/errors.ts'
import { safetensorsChunks } from '../../sdk/formats/safetensors.ts'
import { openModel, openTensors } from '../../sdk/formats/stored-model.ts'
import { storeAt } from '../../sdk/store/store.ts'

const root = mkdtempSync(join(tmpdir(), 'halfling-models-'))
afterAll(() => rmSync(root, { recursive: true }))

let folders = 0
function folder(files: Record<string, string | object | Uint8Array>): string {
  const path = join(root, String(folders++))
  mkdirSync(path)
  for (const [name, content] of Object.entries(files))
    writeFileSync(
      join(path, name),
      typeof content === 'string' || content instanceof Uint8Array ? content : JSON.stringify(content),
    )
  return path
}
const tensors = (...names: string[]): Uint8Array =>
  Buffer.concat(
    safetensorsChunks(names.map((name) => ({ name, dtype: 'U8', shape: [1], data: Uint8Array.of(name.length) }))),
  )

const whole = {
  'config.json': { model_type: 'llama' },
  'tokenizer.json': { model: {} },
  'model.safetensors': tensors('a'),
}

describe('a folder', () => {
  it('is read with what it has', async () => {
    const bare = await openModel(await storeAt(folder(whole)))
    expect(bare.config).toEqual({ model_type: 'llama' })
    expect([bare.generationConfig, bare.tokenizerConfig, bare.chatTemplate]).toEqual([{}, {}, null])
    expect([...bare.tensors.keys()]).toEqual(['a'])
    const full = await openModel(
      await storeAt(
        folder({
          ...whole,
          'generation_config.json': { top_k: 3 },
          'tokenizer_config.json': { eos_token: '</s>' },
          'chat_template.jinja': '{{ x }}\n',
        }),
      ),
    )
    expect(full.generationConfig).toEqual({ top_k: 3 })
    expect(full.tokenizerConfig).toEqual({ eos_token: '</s>' })
    expect(full.chatTemplate).toBe('{{ x }}\n')
  })

  it('names the file that is missing or broken', async () => {
    const { 'config.json': _, ...noConfig } = whole
    const { 'tokenizer.json': __, ...noTokenizer } = whole
    const { 'model.safetensors': ___, ...noWeights } = whole
    const cases: [Record<string, string | object | Uint8Array>, string][] = [
      [noConfig, 'config.json: no such file'],
      [noTokenizer, 'tokenizer.json: no such file'],
      [noWeights, 'has no model.safetensors'],
      [{ ...whole, 'config.json': '{' }, 'config.json: is not JSON'],
      [{ ...whole, 'generation_config.json': '[]' }, 'generation_config.json: is not a JSON object'],
      [{ ...whole, 'model.safetensors': 'short' }, 'model.safetensors: 5 bytes are no safetensors file'],
    ]
    for (const [files, message] of cases) {
      const error = await openModel(await storeAt(folder(files))).catch((e) => e)
      expect(error).toBeInstanceOf(FormatError)
      expect(error.message).toContain(message)
    }
    await expect(openModel(await storeAt(join(root, 'none')))).rejects.toThrow('none: no such model')
    await expect(openModel(await storeAt(join(folder(whole), 'model.safetensors')))).rejects.toThrow('give the folder')
    await expect(openModel(await storeAt(join(folder({ 'x.gguf': 'no model' }), 'x.gguf')))).rejects.toThrow(
      'x.gguf: is not a GGUF',
    )
  })
})

describe('shards', () => {
  const index = (map: object) => ({ 'model.safetensors.index.json': { weight_map: map } })
  const shards = { '1.safetensors': tensors('a', 'bb'), '2.safetensors': tensors('ccc') }
  const map = { a: '1.safetensors', bb: '1.safetensors', ccc: '2.safetensors' }

  it('are one model', async () => {
    const path = folder({ ...shards, ...index(map) })
    const file = await openTensors(await storeAt(path))
    expect([...file.tensors.keys()].sort()).toEqual(['a', 'bb', 'ccc'])
    expect([...(await file.tensors.get('ccc')!.read())]).toEqual([3])
    expect(file.tensors.get('ccc')!.file).toBe(join(path, '2.safetensors'))
  })

  const refused: [what: string, files: Record<string, object>, message: string][] = [
    [
      'a tensor that its shard lacks',
      { ...shards, ...index({ ...map, d: '1.safetensors' }) },
      'd: is not in 1.safetensors',
    ],
    [
      'a tensor of the other shard',
      { ...shards, ...index({ ...map, a: '2.safetensors' }) },
      'a: is not in 2.safetensors',
    ],
    ['a missing shard', { '1.safetensors': shards['1.safetensors'], ...index(map) }, '2.safetensors: no such file'],
    ['a path out of the folder', { ...shards, ...index({ a: '../1.safetensors' }) }, 'a: "../1.safetensors" is not'],
    ['a shard that is no name', { ...shards, ...index({ a: 1 }) }, 'a: 1 is not a safetensors file'],
    ['an empty map', index({}), 'weight_map is empty'],
    ['no map', { 'model.safetensors.index.json': {} }, 'weight_map is not an object'],
    [
      'twins',
      {
        '1.safetensors': tensors('a'),
        '2.safetensors': tensors('a', 'ccc'),
        ...index({ a: '1.safetensors', ccc: '2.safetensors' }),
      },
      'is in',
    ],
  ]
  for (const [what, files, message] of refused)
    it(`refuses ${what}`, async () => {
      const error = await openTensors(await storeAt(folder(files))).catch((e) => e)
      expect(error).toBeInstanceOf(FormatError)
      expect(error.message).toContain(message)
    })
})
