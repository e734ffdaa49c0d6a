/**
 * How a kernel sees an argument. Reads are `x(i)` for floats of any stored type, written ones have `set_x(i, value)` as well;
 * `i` counts elements from the argument's first. `x4(i)` reads elements i to i + 3, and `x2x4(i)` these and i + 16 to i + 19 of a
 * block of 32: whole words of quantized weights. For them i and the argument's place are multiples of 4 (of a block where it has any).
 */
export type Access = 'float' | 'floatOut' | 'int' | 'intOut'

/** A WGSL kernel. Where its arguments lie, and how they are stored, is no matter of it: the target writes the accessors. */
export interface Kernel {
  readonly name: string
  readonly args: Readonly<Record<string, Access>>
  /** Numbers of a dispatch, `p.name` in the code: u32, or f32 where the name begins with `f_`, i32 with `i_`. */
  readonly params: readonly string[]
  /** Threads of a workgroup, in one dimension. */
  readonly workgroup: number
  /** Defines `fn kernel(id: u32, local: u32, group: u32)`: thread of all, in its workgroup, and the workgroup. */
  readonly code: string
}

/** A sum over the workgroup's 64 threads, the same for the same numbers: every thread gets it. */
export const reduce64 = /* wgsl */ `
var<workgroup> partial: array<f32, 64>;
fn sum64(local: u32, value: f32) -> f32 {
  partial[local] = value;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half = half / 2u) {
    if (local < half) { partial[local] += partial[local + half]; }
    workgroupBarrier();
  }
  let total = partial[0];
  workgroupBarrier();
  return total;
}
var<workgroup> partial4: array<vec4f, 64>;
fn sum64x4(local: u32, value: vec4f) -> vec4f {
  partial4[local] = value;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half = half / 2u) {
    if (local < half) { partial4[local] += partial4[local + half]; }
    workgroupBarrier();
  }
  let total = partial4[0];
  workgroupBarrier();
  return total;
}
fn max64(local: u32, value: f32) -> f32 {
  partial[local] = value;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half = half / 2u) {
    if (local < half) { partial[local] = max(partial[local], partial[local + half]); }
    workgroupBarrier();
  }
  let top = partial[0];
  workgroupBarrier();
  return top;
}
`

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
