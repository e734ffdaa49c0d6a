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
    const at = `p.${name}_at + j`
    if (arena) {
      written[buffer] = true
      types[buffer] = 'u32'
      accessors.push(`fn ${name}(j: u32) -> ${type} { return bitcast<${type}>(${own}[${at}]); }`)
      if (isOut) accessors.push(`fn set_${name}(j: u32, value: ${type}) { ${own}[${at}] = bitcast<u32>(value); }`)
      continue
    }
    written[buffer] = (written[buffer] ?? false) || isOut
    types[buffer] = elementOf[dtype]
    accessors.push(`fn ${name}(j: u32) -> ${type} {\n  let i = ${at};\n  ${readers[dtype](own)}\n}`)
    if (isOut) accessors.push(`fn set_${name}(j: u32, value: ${type}) { ${own}[${at}] = value; }`)
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
