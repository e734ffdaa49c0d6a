/**
 * How a kernel sees an argument. Reads are `x(i)` for floats of any stored type, written ones have `set_x(i, value)` as well;
 * `i` counts elements from the argument's first. `x4(i)` reads elements i to i + 3 (i and the argument's place are multiples of 4),
 * `x8(i)` elements i to i + 7 as the two columns of a mat2x4f (multiples of 8): whole words of quantized weights. Of halves
 * `set_x2(i, a, b)` writes two (i even), and there is no `set_x`.
 */
export type Access = 'float' | 'floatOut' | 'int' | 'intOut'

/** A WGSL kernel. Where its arguments lie, and how they are stored, is no matter of it: the target writes the accessors. */
export interface Kernel {
  readonly name: string
  readonly args: Readonly<Record<string, Access>>
  /** Numbers of a dispatch, `p.name` in the code: u32, or f32 where the name begins with `f_`, i32 with `i_`. */
  readonly params: readonly string[]
  /** Defines `fn kernel(id: u32, local: u32, group: u32)`: thread of all, in its workgroup, and the workgroup. */
  readonly code: string
}

/** Threads of a workgroup, in one dimension. */
export const workgroup = 64

/** A kernel of its `body`, after the functions that it calls. */
type Frame = (name: string, args: Kernel['args'], params: readonly string[], body: string, functions?: string) => Kernel

/** A workgroup each: `body` runs in every thread of a workgroup, `local` is the thread's number in it, `group` the workgroup's. */
export const byGroup: Frame = (name, args, params, body, functions = '') => ({
  name,
  args,
  params,
  code: `${functions}fn kernel(thread: u32, local: u32, group: u32) {\n  ${body}\n}`,
})

/** A thread each: `body` runs for i from 0 to p.n - 1. */
export const each: Frame = (name, args, params, body, functions) =>
  byGroup(name, args, ['n', ...params], `let i = thread;\n  if (i >= p.n) { return; }\n  ${body}`, functions)

/** `name(local, value)`: over the workgroup's 64 threads, eight times eight, then eight: each barrier costs more than eight reads. */
const over64 = (name: string, type: string, both: (a: string, b: string) => string): string => {
  const all = (at: (n: number) => string) => [1, 2, 3, 4, 5, 6, 7].reduce((sum, n) => both(sum, at(n)), at(0))
  return /* wgsl */ `
var<workgroup> of_${name}: array<${type}, 64>;
fn ${name}(local: u32, value: ${type}) -> ${type} {
  of_${name}[local] = value;
  workgroupBarrier();
  if (local < 8u) { of_${name}[local] = ${all((n) => `of_${name}[local + ${8 * n}u]`)}; }
  workgroupBarrier();
  let all = ${all((n) => `of_${name}[${n}]`)};
  workgroupBarrier();
  return all;
}
`
}

/** Sums and the greatest over the workgroup's 64 threads, the same for the same numbers: every thread gets it. */
export const reduce64: string = [
  over64('sum64', 'f32', (a, b) => `${a} + ${b}`),
  over64('sum64x4', 'vec4f', (a, b) => `${a} + ${b}`),
  over64('max64', 'f32', (a, b) => `max(${a}, ${b})`),
].join('')

/** log(x), near 1 by the series of atanh: WGSL's own has an absolute error of 2^-21 there. */
export const ln = /* wgsl */ `
fn ln(x: f32) -> f32 {
  if (x < 0.5 || x > 2.0) { return log(x); }
  return twice_atanh((x - 1.0) / (x + 1.0));
}
/** log(1 - q) for q up to a half, without losing a small q. */
fn ln_rest(q: f32) -> f32 { return twice_atanh(-q / (2.0 - q)); }
fn twice_atanh(s: f32) -> f32 {
  let q = s * s;
  return 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (0.2 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q * (1.0 / 13.0 + q / 15.0)))))));
}
`

/** exp(x) to two units in the last place (WGSL's own may lose 3 + 2|x| of them); 0 below -87. */
export const expo = /* wgsl */ `
fn expo(x: f32) -> f32 {
  if (x < -87.0) { return 0.0; }
  let k = round(x * 1.44269504);
  let r = (x - k * 0.693359375) + k * 2.12194440e-4;
  let y = 1.0 + r * (1.0 + r * (0.5 + r * (0.16666667 + r * (0.041666667 + r * (0.0083333333 + r * 0.0013888889)))));
  return ldexp(y, i32(k));
}
`
