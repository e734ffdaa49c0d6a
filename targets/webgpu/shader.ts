import { type Kernel, workgroup } from '../../kernels-wgsl/kernel.ts'
import type { DType } from '../../sdk/dtype.ts'
import { arenaReader, readers, toHalf } from './readers.ts'

/** Where an argument of a kernel lies: in the arena, or in a buffer of its own. */
export interface Binding {
  readonly dtype: DType
  /** Index among the buffers of the dispatch. */
  readonly buffer: number
  /** A buffer of the arena: words of any type, read and written. */
  readonly arena: boolean
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
    const reader = arena ? arenaReader(type) : readers[dtype]
    types[buffer] = reader.word
    accessors.push(`fn ${name}(j: u32) -> ${type} {\n  ${at}\n  ${reader.one(own)}\n}`)
    if (isOut && !arena && dtype === 'f16')
      accessors.push(
        toHalf,
        `fn set_${name}2(j: u32, a: f32, b: f32) { ${own}[(p.${name}_at + j) >> 1u] = to_half(a) | (to_half(b) << 16u); }`,
      )
    else if (isOut)
      accessors.push(
        `fn set_${name}(j: u32, value: ${type}) { ${own}[p.${name}_at + j] = ${arena ? 'bitcast<u32>(value)' : 'value'}; }`,
      )
    const uses = (accessor: string) => new RegExp(`\\b${accessor}\\(`).test(kernel.code)
    if (uses(`${name}4`)) accessors.push(`fn ${name}4(j: u32) -> vec4f {\n  ${at}\n  ${reader.four(own)}\n}`)
    if (uses(`${name}8`)) accessors.push(`fn ${name}8(j: u32) -> mat2x4f {\n  ${at}\n  ${reader.eight(own)}\n}`)
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
@compute @workgroup_size(${workgroup})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let group = p.groups_first + w.x + w.y * p.groups_x;
  if (group >= p.groups_end) { return; }
  kernel(group * ${workgroup}u + local, local, group);
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
