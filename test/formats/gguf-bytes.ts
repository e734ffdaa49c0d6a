// Writes small GGUF files for tests.

export type Value =
  | { u32: number }
  | { f32: number }
  | { bool: boolean }
  | { string: string }
  | { strings: readonly string[] }
  | { i32s: readonly number[] }
  | { f32s: readonly number[] }
  | { raw: Uint8Array; type: number }

export interface TensorBytes {
  readonly name: string
  /** Row-major. */
  readonly shape: readonly number[]
  /** ggml's id of the type. */
  readonly type: number
  readonly data: Uint8Array
  /** Instead of the right one. */
  readonly offset?: number
}

class Writer {
  private readonly parts: number[] = []
  get length(): number {
    return this.parts.length
  }
  u8(...values: number[]): this {
    this.parts.push(...values)
    return this
  }
  u32(value: number): this {
    return this.u8(value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24)
  }
  u64(value: number): this {
    return this.u32(value % 2 ** 32).u32(Math.floor(value / 2 ** 32))
  }
  f32(value: number): this {
    return this.u8(...new Uint8Array(Float32Array.of(value).buffer))
  }
  string(value: string): this {
    const bytes = new TextEncoder().encode(value)
    return this.u64(bytes.length).u8(...bytes)
  }
  bytes(value: Uint8Array): this {
    for (const byte of value) this.parts.push(byte)
    return this
  }
  pad(alignment: number): this {
    while (this.length % alignment) this.parts.push(0)
    return this
  }
  done(): Uint8Array {
    return Uint8Array.from(this.parts)
  }
}

function writeValue(w: Writer, value: Value): void {
  if ('u32' in value) w.u32(4).u32(value.u32)
  else if ('f32' in value) w.u32(6).f32(value.f32)
  else if ('bool' in value) w.u32(7).u8(Number(value.bool))
  else if ('string' in value) w.u32(8).string(value.string)
  else if ('strings' in value) {
    w.u32(9).u32(8).u64(value.strings.length)
    for (const s of value.strings) w.string(s)
  } else if ('i32s' in value) {
    w.u32(9).u32(5).u64(value.i32s.length)
    for (const n of value.i32s) w.u32(n >>> 0)
  } else if ('f32s' in value) {
    w.u32(9).u32(6).u64(value.f32s.length)
    for (const x of value.f32s) w.f32(x)
  } else w.u32(value.type).bytes(value.raw)
}

export function ggufBytes(
  metadata: readonly (readonly [string, Value])[],
  tensors: readonly TensorBytes[] = [],
  { version = 3, alignment = 32 } = {},
): Uint8Array {
  const w = new Writer()
    .u8(...new TextEncoder().encode('GGUF'))
    .u32(version)
    .u64(tensors.length)
    .u64(metadata.length)
  for (const [key, value] of metadata) writeValue(w.string(key), value)
  let at = 0
  for (const { name, shape, type, data, offset } of tensors) {
    w.string(name).u32(shape.length)
    for (const n of [...shape].reverse()) w.u64(n)
    w.u32(type).u64(offset ?? at)
    at = Math.ceil((at + data.length) / alignment) * alignment
  }
  w.pad(alignment)
  for (const { data } of tensors) w.bytes(data).pad(alignment)
  return w.done()
}

/** The metadata of a llama of `layers` layers, hidden 32, 2 heads of 16, 1 key/value head, intermediate 64. */
export const tinyLlama = (vocabulary: readonly string[], layers = 1): [string, Value][] => [
  ['general.architecture', { string: 'llama' }],
  ['llama.block_count', { u32: layers }],
  ['llama.context_length', { u32: 64 }],
  ['llama.embedding_length', { u32: 32 }],
  ['llama.feed_forward_length', { u32: 64 }],
  ['llama.attention.head_count', { u32: 2 }],
  ['llama.attention.head_count_kv', { u32: 1 }],
  ['llama.attention.layer_norm_rms_epsilon', { f32: 1e-5 }],
  ['llama.rope.freq_base', { f32: 10_000 }],
  ['tokenizer.ggml.model', { string: 'llama' }],
  ['tokenizer.ggml.tokens', { strings: vocabulary }],
  ['tokenizer.ggml.scores', { f32s: vocabulary.map((_, i) => -i) }],
  ['tokenizer.ggml.token_type', { i32s: vocabulary.map((t) => (t === '<unk>' ? 2 : /^<\/?s>$/.test(t) ? 3 : 1)) }],
]
