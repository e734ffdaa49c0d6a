import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { elementCount } from '../../sdk/dtype.ts'
import { HalflingError } from '../../sdk/errors.ts'
import { openGguf } from '../../sdk/formats/gguf.ts'
import { ggufModel } from '../../sdk/formats/gguf-model.ts'
import { openSafetensors, safetensorsChunks } from '../../sdk/formats/safetensors.ts'
import { readFloats, type StoredTensor } from '../../sdk/formats/stored.ts'
import { type ByteSource, bytesSource } from '../../sdk/store/byte-source.ts'
import { loadTokenizer } from '../../sdk/text/tokenizer.ts'
import { ggufBytes, tinyLlama } from './gguf-bytes.ts'
import { goldenFile, integers, missing, model, table } from './shared.ts'

// Seeded damage to small files: whatever comes of it is a result or a HalflingError, soon and within the file's own size.

const rounds = 2500

/** Numbers that lie: small, negative, around every power of two that a reader may trip on. */
const lies = [
  0n,
  1n,
  7n,
  31n,
  255n,
  65_535n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
]

/** One to three changes, nine of ten in the first `header` bytes. */
function damage(good: Uint8Array, header: number, random: (n: number) => number): Uint8Array {
  let bytes = new Uint8Array(good)
  for (let n = 1 + random(3); n > 0; n--) {
    const at = random(Math.min(bytes.length, random(10) ? header : bytes.length))
    const kind = random(7)
    if (kind === 0) bytes[at] ^= 1 << random(8)
    else if (kind === 1) bytes[at] = random(256)
    else if (kind === 2 && at + 8 <= bytes.length)
      new DataView(bytes.buffer).setBigUint64(at, lies[random(lies.length)], true)
    else if (kind === 3 && at + 4 <= bytes.length)
      new DataView(bytes.buffer).setUint32(at, Number(lies[random(lies.length)] & 0xffffffffn), true)
    else if (kind === 4) bytes = bytes.slice(0, random(10) ? bytes.length - random(64) : at)
    else if (kind === 5) {
      // A digit or a bracket of JSON becomes another; a run of bytes is said twice.
      bytes[at] = '0123456789-.eE{}[]",:'.charCodeAt(random(21))
    } else {
      const length = random(40)
      bytes = new Uint8Array(Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)]))
    }
    if (bytes.length === 0) return bytes
  }
  return bytes
}

async function readAll(tensors: ReadonlyMap<string, StoredTensor>): Promise<void> {
  for (const tensor of tensors.values()) {
    expect(tensor.bytes).toBeLessThanOrEqual(2 ** 24)
    if (/^(BOOL|[IU]\d+)$/.test(tensor.dtype)) expect((await tensor.read()).length).toBe(tensor.bytes)
    else expect((await readFloats(tensor)).length).toBe(elementCount(tensor.shape))
  }
}

async function survive(good: Uint8Array, header: number, seed: number, use: (s: ByteSource) => Promise<void>) {
  await use(bytesSource('good', good))
  const random = integers(seed)
  const start = process.memoryUsage().rss
  let refused = 0
  let slowest = 0
  for (let round = 0; round < rounds; round++) {
    const bytes = damage(good, header, random)
    const began = performance.now()
    try {
      await use(bytesSource('damaged', bytes))
    } catch (error) {
      if (!(error instanceof HalflingError)) throw new Error(`round ${round} of seed ${seed}`, { cause: error })
      refused++
    }
    slowest = Math.max(slowest, performance.now() - began)
  }
  expect(refused).toBeGreaterThan(rounds / 10)
  expect(slowest).toBeLessThan(2000)
  expect(process.memoryUsage().rss - start).toBeLessThan(500e6)
}

describe('damaged safetensors', () => {
  const use = async (source: ByteSource) => readAll((await openSafetensors(source)).tensors)
  const small = Buffer.concat(
    safetensorsChunks(
      (['F32', 'F16', 'I64', 'BOOL', 'F8_E4M3', 'F64', 'BF16'] as const).map((dtype, i) => {
        const bytes = { F32: 4, F16: 2, I64: 8, BOOL: 1, F8_E4M3: 1, F64: 8, BF16: 2 }[dtype]
        return { name: `t${i}`, dtype, shape: [3, i], data: new Uint8Array(3 * i * bytes) }
      }),
      { format: 'pt' },
    ),
  )
  it('of our own', () => survive(small, small.length, 1, use))
  for (const [i, path] of [
    table('safetensors_fixture.safetensors'),
    goldenFile('tiny-qwen2', 'train', 'sft_lora.init.safetensors'),
  ].entries())
    it.skipIf(missing(path))(path, () => survive(readFileSync(path), 2500, 2 + i, use))
})

describe('damaged GGUF', () => {
  const use = async (source: ByteSource) => {
    const file = await openGguf(source)
    await readAll(file.tensors)
    const { tensors, tokenizerJson, tokenizerConfig } = await ggufModel(file)
    await readAll(tensors)
    loadTokenizer(tokenizerJson, tokenizerConfig).encode('a bc\n')
  }
  const words = ['<unk>', '<s>', '</s>', '▁', 'a', 'b', 'ab', '▁a', '<0x0A>']
  const tensor = (name: string, shape: number[], type: number, bytes: number) => ({
    name,
    shape,
    type,
    data: new Uint8Array(bytes),
  })
  const small = ggufBytes(
    [...tinyLlama(words), ['general.alignment', { u32: 32 }], ['llama.rope.scaling.type', { string: 'none' }]],
    [
      tensor('token_embd.weight', [9, 32], 0, 9 * 128),
      tensor('blk.0.attn_q.weight', [32, 32], 8, 32 * 34),
      tensor('blk.0.attn_k.weight', [16, 32], 2, 16 * 18),
      tensor('blk.0.ffn_up.weight', [1, 256], 14, 210),
      tensor('rope_freqs.weight', [8], 0, 32),
    ],
  )
  it('of our own', () => survive(small, small.length - 2900, 11, use))
  const path = model('stories260K', 'stories260K-f32.gguf')
  it.skipIf(missing(path))(path, () => survive(readFileSync(path), 14_000, 12, use))
})
