import { type DType, storedTypes } from '../../sdk/dtype.ts'

/** WGSL that reads elements i, i to i + 3 (i a multiple of 4), and i to i + 7 (of 8) of a buffer `b`, and returns them. */
export interface Reader {
  /** Type of the buffer's elements: a quantized type is read by words. */
  readonly word: 'f32' | 'i32' | 'u32'
  one(b: string): string
  four(b: string): string
  eight(b: string): string
}

const vec4 = (element: (n: number) => string, from: number): string =>
  `vec4f(${[0, 1, 2, 3].map((n) => element(from + n)).join(', ')})`

/** Words of 4 bytes, each an element. */
const plain = (word: Reader['word'], element: (word: string) => string, one = element): Reader => {
  const at = (b: string) => (n: number) => element(`${b}[i + ${n}u]`)
  return {
    word,
    one: (b) => `return ${one(`${b}[i]`)};`,
    four: (b) => `return ${vec4(at(b), 0)};`,
    eight: (b) => `return mat2x4f(${vec4(at(b), 0)}, ${vec4(at(b), 4)});`,
  }
}

/** Two elements a word. */
const halves = (one: (b: string) => string, four: (words: readonly [string, string]) => string): Reader => {
  const at = (b: string, n: number) => four([`${b}[(i >> 1u) + ${n}u]`, `${b}[(i >> 1u) + ${n + 1}u]`])
  return {
    word: 'u32',
    one,
    four: (b) => `return ${at(b, 0)};`,
    eight: (b) => `return mat2x4f(${at(b, 0)}, ${at(b, 2)});`,
  }
}

/** A block's first byte and its f16 scale, which stands there. Blocks of an even number of bytes may begin in the midst of words. */
const block = (dtype: DType, b: string): string => {
  const { elements, bytes } = storedTypes[dtype]
  return `let at = (i / ${elements}u) * ${bytes}u;
  let d = unpack2x16float(${b}[at >> 2u] >> (8u * (at & 2u))).x;`
}
const scaleBytes = 2
/** `w`: the four bytes at n, which is even. */
const word = (b: string): string =>
  `let w = select((${b}[n >> 2u] >> 16u) | (${b}[(n >> 2u) + 1u] << 16u), ${b}[n >> 2u], (n & 2u) == 0u);`
/** `w`: the eight bytes at n, which is even. */
const twoWords = (b: string): string => `let m = n >> 2u;
  var w = vec2u(${b}[m], ${b}[m + 1u]);
  if ((n & 2u) != 0u) { w = (w >> vec2u(16u)) | (vec2u(w.y, ${b}[m + 2u]) << vec2u(16u)); }`

const signedBytes = (w: string): string => `d * vec4f((vec4i(i32(${w})) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u))`
const q8At = `let n = at + ${scaleBytes}u + i % ${storedTypes.q8.elements}u;`

/** A byte holds two elements, half a block apart. `shift` brings the right nibble down. */
const q4At = `let half = ${storedTypes.q4.elements / 2}u;
  let n = at + ${scaleBytes}u + i % half;
  let shift = 4u * ((i / half) & 1u);`
const nibbles = (w: string): string => `d * (vec4f((vec4u(${w}) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(15u)) - 8.0)`

/** A block is five words: scale and minimum, and four of eight elements. `m`: the word of element i. */
const q4aAt = (b: string): string => {
  const { elements, bytes } = storedTypes.q4a
  return `let at = (i / ${elements}u) * ${bytes / 4}u;
  let d = unpack2x16float(${b}[at]);
  let half = ${elements / 2}u;
  let m = at + 1u + (i % half) / 4u;
  let shift = 4u * ((i / half) & 1u);`
}
const aboveMinimum = (w: string): string =>
  `(d.x * vec4f((vec4u(${w} >> shift) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(15u)) + d.y)`

/** q8, q4a and q4 are GGUF's blocks, byte for byte (sdk/quant/blocks.ts). */
export const readers: Readonly<Record<DType, Reader>> = {
  f32: plain('f32', (w) => w),
  i32: plain(
    'i32',
    (w) => `f32(${w})`,
    (w) => w,
  ),
  f16: halves(
    (b) => `return unpack2x16float(${b}[i >> 1u])[i & 1u];`,
    ([x, y]) => `vec4f(unpack2x16float(${x}), unpack2x16float(${y}))`,
  ),
  bf16: halves(
    (b) => `return bitcast<f32>((${b}[i >> 1u] >> (16u * (i & 1u))) << 16u);`,
    ([x, y]) => `bitcast<vec4f>(vec4u(${x} << 16u, ${x} & 0xffff0000u, ${y} << 16u, ${y} & 0xffff0000u))`,
  ),
  q8: {
    word: 'u32',
    one: (b) => `${block('q8', b)}
  ${q8At}
  return d * f32(i32(${b}[n >> 2u] << (24u - 8u * (n & 3u))) >> 24u);`,
    four: (b) => `${block('q8', b)}
  ${q8At}
  ${word(b)}
  return ${signedBytes('w')};`,
    eight: (b) => `${block('q8', b)}
  ${q8At}
  ${twoWords(b)}
  return mat2x4f(${signedBytes('w.x')}, ${signedBytes('w.y')});`,
  },
  q4a: {
    word: 'u32',
    one: (b) => `${q4aAt(b)}
  return d.x * f32((${b}[m] >> (8u * (i & 3u) + shift)) & 15u) + d.y;`,
    four: (b) => `${q4aAt(b)}
  return ${aboveMinimum(`${b}[m]`)};`,
    eight: (b) => `${q4aAt(b)}
  return mat2x4f(${aboveMinimum(`${b}[m]`)}, ${aboveMinimum(`${b}[m + 1u]`)});`,
  },
  q4: {
    word: 'u32',
    one: (b) => `${block('q4', b)}
  ${q4At}
  return d * (f32((${b}[n >> 2u] >> (8u * (n & 3u) + shift)) & 15u) - 8.0);`,
    four: (b) => `${block('q4', b)}
  ${q4At}
  ${word(b)}
  return ${nibbles('w >> shift')};`,
    eight: (b) => `${block('q4', b)}
  ${q4At}
  ${twoWords(b)}
  w = w >> vec2u(shift);
  return mat2x4f(${nibbles('w.x')}, ${nibbles('w.y')});`,
  },
}

/** The arena's words are of any type. */
export const arenaReader = (type: 'f32' | 'i32'): Reader => plain('u32', (w) => `bitcast<${type}>(${w})`)

/** The nearest f16, of two as near the even one: WGSL's own pack2x16float may round either way. As in kernels-as/pack.ts. */
export const toHalf = `fn to_half(x: f32) -> u32 {
  let bits = bitcast<u32>(x) & 0x7fffffffu;
  let sign = (bitcast<u32>(x) >> 16u) & 0x8000u;
  if (bits >= 0x477ff000u) { return sign | 0x7c00u; }
  if (bits < 0x38800000u) { return sign | (bitcast<u32>(bitcast<f32>(bits) + 0.5) - 0x3f000000u); }
  return sign | ((bits - 0x38000000u + 0xfffu + ((bits >> 13u) & 1u)) >> 13u);
}`
