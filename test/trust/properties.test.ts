import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runInNewContext } from 'node:vm'
import { parquetWriteBuffer } from 'hyparquet-writer'
import { afterAll, expect, it } from 'vitest'
import { readRows } from '../../sdk/data/rows.ts'
import { elementCount } from '../../sdk/dtype.ts'
import { adapterFiles, parseAdapterConfig, readAdapter } from '../../sdk/formats/peft.ts'
import { openSafetensors, safetensorsChunks } from '../../sdk/formats/safetensors.ts'
import { openModel } from '../../sdk/formats/stored-model.ts'
import { waysToMatch } from '../../sdk/pattern.ts'
import { quantizeModel } from '../../sdk/quantize.ts'
import { bytesSource } from '../../sdk/store/byte-source.ts'
import { storeAt, writeFiles } from '../../sdk/store/store.ts'
import { DecodeStream } from '../../sdk/text/decode-stream.ts'
import { loadTokenizer } from '../../sdk/text/tokenizer.ts'
import { type Random, randomOf } from './mutations.ts'

// What holds for whatever comes: seeded draws of it.

const folder = mkdtempSync(join(tmpdir(), 'halfling-properties-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const times = <T>(n: number, make: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => make(i))
const pieces = [
  'a',
  'Hello',
  ' ',
  '  ',
  '\n',
  '\r\n',
  '\t',
  '42',
  '3.5',
  'naïve',
  'ß',
  '日本',
  '👩‍👩‍👧',
  '🏳️',
  '\u0301',
  '\u200d',
  '<',
  '|>',
  '<|im_end|>',
  '<think>',
  "'s",
  '"',
  '\\',
  '\u0000',
  '\ufeff',
  '\ufffd',
]
const textOf = (random: Random, length: number) =>
  times(random(length), () =>
    random(8)
      ? pieces[random(pieces.length)]
      : String.fromCodePoint(random(2) ? random(0xd800) : 0xe000 + random(0x102000)),
  ).join('')

it('safetensors: what is written is read', async () => {
  const sizes = { F32: 4, F16: 2, BF16: 2, F64: 8, I64: 8, I32: 4, I8: 1, U8: 1, BOOL: 1 } as const
  const dtypes = Object.keys(sizes) as (keyof typeof sizes)[]
  for (let seed = 0; seed < 300; seed++) {
    const random = randomOf(seed, 1)
    const tensors = times(random(8), (i) => {
      const dtype = dtypes[random(dtypes.length)]
      const shape = times(random(4), () => random(6))
      const data = Uint8Array.from({ length: elementCount(shape) * sizes[dtype] }, () => random(256))
      return { name: `${i} ${textOf(random, 6)}`, dtype, shape, data }
    })
    const note = textOf(random, 10)
    const file = await openSafetensors(bytesSource('x', Buffer.concat(safetensorsChunks(tensors, { note }))))
    expect(file.metadata).toEqual({ note })
    expect([...file.tensors.keys()].sort()).toEqual(tensors.map(({ name }) => name).sort())
    for (const { name, dtype, shape, data } of tensors) {
      const stored = file.tensors.get(name)!
      expect([stored.dtype, stored.shape]).toEqual([dtype, shape])
      expect(Buffer.compare(await stored.read(), data), name).toBe(0)
    }
  }
})

it('adapters: what is written is read', async () => {
  for (let seed = 0; seed < 20; seed++) {
    const random = randomOf(seed, 2)
    const [r, width] = [1 + random(8), 1 + random(40)]
    const data = (n: number) => Float32Array.from({ length: n }, () => random(2 ** 24) / 2 ** 20 - 8)
    const tensors = new Map(
      times(1 + random(3), (i) => [
        `base_model.model.${i}.lora_A.weight`,
        { shape: [r, width], data: data(r * width) },
      ]),
    )
    const config = parseAdapterConfig(
      { peft_type: 'LORA', r, lora_alpha: random(64) / 4, target_modules: ['q_proj'], use_rslora: random(2) === 1 },
      'x',
    )
    const path = join(folder, `adapter-${seed}`)
    const place = await storeAt(path)
    await writeFiles(place, adapterFiles(config, tensors))
    const read = await readAdapter(place)
    expect(read.config).toEqual(config)
    expect(read.tensors).toEqual(tensors)
  }
})

it('tokenizers: text is what its tokens are, of the folder and of its GGUF; streamed, it is the same', async () => {
  const gguf = join(folder, 'nano.gguf')
  await quantizeModel('nano', gguf, { dtype: 'q8' })
  const [own, again] = await Promise.all(
    ['models/nano', gguf].map(async (path) => {
      const source = await openModel(await storeAt(path))
      return loadTokenizer(source.tokenizerJson, source.tokenizerConfig)
    }),
  )
  for (let seed = 0; seed < 1000; seed++) {
    const text = textOf(randomOf(seed, 3), 30)
    const ids = own.encode(text)
    expect(own.decode(ids), JSON.stringify(text)).toBe(text.normalize('NFC'))
    expect(again.encode(text)).toEqual(ids)
    const stream = new DecodeStream(own)
    expect(ids.map((id) => stream.push(id)).join('') + stream.flush()).toBe(
      own.decode(ids, { skipSpecialTokens: true }),
    )
  }
})

it('rows: .jsonl, .json and .parquet say the same', async () => {
  const names = ['question', 'answer', 'n', 'sure', 'list']
  for (let seed = 0; seed < 12; seed++) {
    const random = randomOf(seed, 4)
    const rows = times(1 + random(40), () => ({
      question: textOf(random, 12),
      answer: random(5) ? textOf(random, 5) : null,
      n: random(1000) / 8,
      sure: random(2) === 1,
      list: times(random(4), () => textOf(random, 4)),
    }))
    const columnData = names.map((name) => ({
      name,
      data: rows.map((row) => row[name as keyof (typeof rows)[0]]),
      ...(name === 'list' ? { type: 'JSON' as const } : {}),
    }))
    const files = {
      'rows.jsonl': rows.map((row) => JSON.stringify(row)).join(random(2) ? '\n' : '\r\n'),
      'rows.json': JSON.stringify(rows),
      'rows.parquet': new Uint8Array(parquetWriteBuffer({ columnData })),
    }
    for (const [name, content] of Object.entries(files)) {
      writeFileSync(join(folder, name), content)
      const read: unknown[] = []
      for await (const { values } of readRows(join(folder, name))) read.push(values)
      expect(read, name).toEqual(rows)
    }
  }
})

/** A regular expression drawn from a grammar that is rich in repetitions of the same letters. */
function patternOf(random: Random, depth = 0): string {
  const atom = () => {
    const kind = random(depth < 3 ? 8 : 6)
    if (kind < 6) return ['a', 'b', '.', '[ab]', '\\w', '\\s'][kind]
    return `${['(', '(?:'][kind - 6]}${patternOf(random, depth + 1)})`
  }
  const repeat = () => (random(3) ? '' : ['*', '+', '?', '{2}', '{1,3}', '{2,}', '*?'][random(7)])
  const branch = () => times(1 + random(4), () => atom() + repeat()).join('')
  return times(random(4) ? 1 : 2 + random(2), branch).join('|')
}

it('patterns with few ways to match end soon', () => {
  let passed = 0
  for (let seed = 0; seed < 1000; seed++) {
    const pattern = patternOf(randomOf(seed, 6))
    if (!(waysToMatch(pattern) <= 2 ** 14)) continue
    passed++
    for (const text of ['a'.repeat(60), `${'ab'.repeat(30)}!`, `${' '.repeat(60)}x`, `${'a '.repeat(30)}\n`]) {
      const start = performance.now()
      runInNewContext(
        'new RegExp("^(?:" + pattern + ")$", "u").test(text); text.match(new RegExp(pattern, "gu"))',
        { pattern, text },
        { timeout: 2000 },
      )
      expect(performance.now() - start, pattern).toBeLessThan(2000)
    }
  }
  expect(passed).toBeGreaterThan(300)
})
