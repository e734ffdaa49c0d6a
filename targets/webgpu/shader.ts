import type { Kernel } from '../../kernels-wgsl/kernel.ts'
import type { DType } from '../../sdk/dtype.ts'

/** Where an argument of a kernel lies: in the arena, or in a buffer of its own. */
export interface Binding {
  readonly dtype: DType
  /** Index among the buffers of the dispatch. */
  readonly buffer: number
  /** A buffer of the arena: words of any type, read and written. */
  readonly arena: boolean
}

/** Reads element i of a buffer of a stored type; q8 and q4 are GGUF's blocks, byte for byte (sdk/quant/blocks.ts). */
const readers: Readonly<Record<DType, (buffer: string) => string>> = {
  f32: (b) => `return ${b}[i];`,
  i32: (b) => `return ${b}[i];`,
  f16: (b) => `return unpack2x16float(${b}[i >> 1u])[i & 1u];`,
  bf16: (b) => `return bitcast<f32>((${b}[i >> 1u] >> (16u * (i & 1u))) << 16u);`,
  q8: (b) => `let at = (i >> 5u) * 34u;
  let d = unpack2x16float(${b}[at >> 2u] >> (8u * (at & 2u))).x;
  let n = at + 2u + (i & 31u);
  return d * f32(i32(${b}[n >> 2u] << (24u - 8u * (n & 3u))) >> 24u);`,
  q4: (b) => `let at = (i >> 5u) * 18u;
  let d = unpack2x16float(${b}[at >> 2u] >> (8u * (at & 2u))).x;
  let n = at + 2u + (i & 15u);
  let pair = ${b}[n >> 2u] >> (8u * (n & 3u));
  return d * (f32((pair >> (4u * ((i >> 4u) & 1u))) & 15u) - 8.0);`,
}
/** Four bytes at n, which is even: blocks of 34 and 18 bytes begin in the midst of words. */
const word = (b: string): string =>
  `let w = select((${b}[n >> 2u] >> 16u) | (${b}[(n >> 2u) + 1u] << 16u), ${b}[n >> 2u], (n & 2u) == 0u);`
const scaleAt = (b: string): string => `let d = unpack2x16float(${b}[at >> 2u] >> (8u * (at & 2u))).x;`
const nibbles = (shift: string): string =>
  `d * (vec4f((vec4u(w) >> (vec4u(0u, 8u, 16u, 24u) + ${shift})) & vec4u(15u)) - 8.0)`

/** Reads elements i to i + 3; i is a multiple of 4. */
const vectors: Readonly<Record<DType, (buffer: string) => string>> = {
  f32: (b) => `return vec4f(${b}[i], ${b}[i + 1u], ${b}[i + 2u], ${b}[i + 3u]);`,
  i32: (b) => `return vec4f(f32(${b}[i]), f32(${b}[i + 1u]), f32(${b}[i + 2u]), f32(${b}[i + 3u]));`,
  f16: (b) => `return vec4f(unpack2x16float(${b}[i >> 1u]), unpack2x16float(${b}[(i >> 1u) + 1u]));`,
  bf16: (b) => `let w = vec2u(${b}[i >> 1u], ${b}[(i >> 1u) + 1u]);
  return bitcast<vec4f>(vec4u(w.x << 16u, w.x & 0xffff0000u, w.y << 16u, w.y & 0xffff0000u));`,
  q8: (b) => `let at = (i >> 5u) * 34u;
  ${scaleAt(b)}
  let n = at + 2u + (i & 31u);
  ${word(b)}
  return d * vec4f((vec4i(i32(w)) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u));`,
  q4: (b) => `let at = (i >> 5u) * 18u;
  ${scaleAt(b)}
  let n = at + 2u + (i & 15u);
  ${word(b)}
  return ${nibbles('4u * ((i >> 4u) & 1u)')};`,
}
const arenaVector = (b: string): string =>
  `return bitcast<vec4f>(vec4u(${b}[i], ${b}[i + 1u], ${b}[i + 2u], ${b}[i + 3u]));`
/** Elements i to i + 3 of the first half of a block, and the four 16 later: the nibbles of the same bytes. */
const q4Halves = (b: string): string => `let at = (i >> 5u) * 18u;
  ${scaleAt(b)}
  let n = at + 2u + (i & 15u);
  ${word(b)}
  return mat2x4f(${nibbles('0u')}, ${nibbles('4u')});`

const elementOf: Readonly<Record<DType, string>> = {
  f32: 'f32',
  i32: 'i32',
  f16: 'u32',
  bf16: 'u32',
  q8: 'u32',
  q4: 'u32',
}

export interface Shader {
  readonly code: string
  /** Of each buffer: is it written? */
  readonly written: readonly boolean[]
}

/**
 * The kernel's code with accessors for its arguments where they lie: one binding for the numbers, one for each buffer, however
 * many arguments are in it. So a kernel needs no more than the default limits' eight storage buffers, and may read what it writes.
 */
export function shaderOf(kernel: Kernel, bindings: readonly Binding[]): Shader {
  const names = Object.keys(kernel.args)
  const written: boolean[] = []
  const types: string[] = []
  const accessors: string[] = []
  for (const [a, name] of names.entries()) {
    const access = kernel.args[name]
    const { buffer, dtype, arena } = bindings[a]
    const own = `buffer${buffer}`
    const isInt = access === 'int' || access === 'intOut'
    const isOut = access === 'floatOut' || access === 'intOut'
    const type = isInt ? 'i32' : 'f32'
    const at = `let i = p.${name}_at + j;`
    written[buffer] = arena || (written[buffer] ?? false) || isOut
    types[buffer] = arena ? 'u32' : elementOf[dtype]
    const read = arena ? `return bitcast<${type}>(${own}[i]);` : readers[dtype](own)
    accessors.push(`fn ${name}(j: u32) -> ${type} {\n  ${at}\n  ${read}\n}`)
    if (isOut)
      accessors.push(
        `fn set_${name}(j: u32, value: ${type}) { ${own}[p.${name}_at + j] = ${arena ? 'bitcast<u32>(value)' : 'value'}; }`,
      )
    const [four, twice] = ['4(', '2x4('].map((end) =>
      new RegExp(`\\b${name}${end.replace('(', '\\(')}`).test(kernel.code),
    )
    if (four || twice)
      accessors.push(`fn ${name}4(j: u32) -> vec4f {\n  ${at}\n  ${(arena ? arenaVector : vectors[dtype])(own)}\n}`)
    if (twice)
      accessors.push(
        !arena && dtype === 'q4'
          ? `fn ${name}2x4(j: u32) -> mat2x4f {\n  ${at}\n  ${q4Halves(own)}\n}`
          : `fn ${name}2x4(j: u32) -> mat2x4f { return mat2x4f(${name}4(j), ${name}4(j + 16u)); }`,
      )
  }
  const number = (name: string) => (name.startsWith('f_') ? 'f32' : name.startsWith('i_') ? 'i32' : 'u32')
  const members = [
    ...names.map((name) => `${name}_at: u32`),
    ...kernel.params.map((name) => `${name}: ${number(name)}`),
  ]
  const buffers = types.map(
    (type, b) =>
      `@group(0) @binding(${b + 1}) var<storage, ${written[b] ? 'read_write' : 'read'}> buffer${b}: array<${type}>;`,
  )
  const code = `struct Params { groups_end: u32, groups_x: u32, groups_first: u32, ${members.join(', ')} }
@group(0) @binding(0) var<uniform> p: Params;
${[...buffers, ...accessors].join('\n')}
${kernel.code}
@compute @workgroup_size(${kernel.workgroup})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let group = p.groups_first + w.x + w.y * p.groups_x;
  if (group >= p.groups_end) { return; }
  kernel(group * ${kernel.workgroup}u + local, local, group);
}
`
  return { code, written }
}

/** Workgroups of a dispatch: all of them, or a range where all at once would take too long. */
export interface GroupRange {
  readonly first: number
  readonly end: number
}

/** Sizes of a dispatch of so many workgroups, and the words that its Params begin with. */
export function gridOf(
  { first, end }: GroupRange,
  most: number,
): { size: [number, number]; head: Uint32Array<ArrayBuffer> } {
  const count = Math.max(1, end - first)
  const x = Math.min(count, most)
  return { size: [x, Math.ceil(count / x)], head: Uint32Array.of(end, x, first) }
}

/** The numbers of a dispatch as the Params of its shader, `head` first; a multiple of 16 bytes. */
export function paramBytes(
  kernel: Kernel,
  head: Uint32Array,
  at: readonly number[],
  values: readonly number[],
): Uint32Array {
  const before = head.length + at.length
  const words = new Uint32Array(Math.ceil((before + values.length) / 4) * 4)
  words.set(head)
  words.set(at, head.length)
  const floats = new Float32Array(words.buffer)
  for (const [i, name] of kernel.params.entries()) {
    if (name.startsWith('f_')) floats[before + i] = values[i]
    else words[before + i] = values[i]
  }
  return words
}
