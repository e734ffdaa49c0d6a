// activation(gate) * up and its reverse, where an activation is x * sigmoid(u(x)): silu, or gelu by tanh; elementwise, threads share runs of 4 elements. Outputs may be the inputs' memory.
// Measured (1 thread, 512 x 4864): 1.5 ns an element forward (7.9 GB/s), 1.8 ns in reverse (10.9 GB/s): exp and a
// division.
import { shareEnd, shareStart } from './common'
import { exp4 } from './math'

// What lowering calls the activations (targets/wasm/lower/nn.ts).
const SILU: i32 = 0

// gelu_tanh: u = 2 sqrt(2 / pi) (x + 0.044715 x^3). Beyond 20 the sigmoid is 0 or 1, and x^3 may leave f32.
const U1: f32 = 1.5957691216057308
const U3: f32 = 0.07135481627260025

// @ts-ignore: decorator
@inline
function sigmoid(x: v128): v128 {
  return f32x4.div(f32x4.splat(1), f32x4.add(f32x4.splat(1), exp4(f32x4.neg(x))))
}

// @ts-ignore: decorator
@inline
function near(x: v128): v128 {
  return f32x4.pmax(f32x4.pmin(x, f32x4.splat(20)), f32x4.splat(-20))
}

// sigmoid(u(x))
// @ts-ignore: decorator
@inline
function gateOf(activation: i32, x: v128): v128 {
  if (activation == SILU) return sigmoid(x)
  const c = near(x)
  return sigmoid(f32x4.mul(c, f32x4.add(f32x4.splat(U1), f32x4.mul(f32x4.splat(U3), f32x4.mul(c, c)))))
}

// x * u'(x)
// @ts-ignore: decorator
@inline
function steepness(activation: i32, x: v128): v128 {
  if (activation == SILU) return x
  const c = near(x)
  return f32x4.mul(c, f32x4.add(f32x4.splat(U1), f32x4.mul(f32x4.splat(3 * U3), f32x4.mul(c, c))))
}

// @ts-ignore: decorator
@inline
function forward(activation: i32, gate: v128, up: v128): v128 {
  return f32x4.mul(f32x4.mul(gate, gateOf(activation, gate)), up)
}

// The activation is a constant in each of its loops.
// @ts-ignore: decorator
@inline
function forwardAll(activation: i32, gate: usize, up: usize, y: usize, n: i32, thread: i32, threads: i32): void {
  const end = shareEnd(n, 4, thread, threads)
  let i = shareStart(n, 4, thread, threads)
  for (; i + 4 <= end; i += 4) {
    const at = <usize>i << 2
    v128.store(y + at, forward(activation, v128.load(gate + at), v128.load(up + at)))
  }
  for (; i < end; i++) {
    const at = <usize>i << 2
    v128.store_lane<f32>(y + at, forward(activation, v128.load32_zero(gate + at), v128.load32_zero(up + at)), 0)
  }
}

export function swiglu(gate: usize, up: usize, y: usize, n: i32, activation: i32, thread: i32, threads: i32): void {
  if (activation == SILU) forwardAll(0, gate, up, y, n, thread, threads)
  else forwardAll(1, gate, up, y, n, thread, threads)
}

// dgate = dy * up * s * (1 + gate * u' * (1 - s)), dup = dy * gate * s, s = sigmoid(u(gate))
// @ts-ignore: decorator
@inline
function dGate(activation: i32, dy: v128, gate: v128, up: v128, s: v128): v128 {
  const one = f32x4.splat(1)
  const slope = f32x4.mul(s, f32x4.add(one, f32x4.mul(steepness(activation, gate), f32x4.sub(one, s))))
  return f32x4.mul(f32x4.mul(dy, up), slope)
}

// @ts-ignore: decorator
@inline
function backAll(
  activation: i32, dy: usize, gate: usize, up: usize, dgate: usize, dup: usize, n: i32, thread: i32, threads: i32,
): void {
  const end = shareEnd(n, 4, thread, threads)
  let i = shareStart(n, 4, thread, threads)
  for (; i + 4 <= end; i += 4) {
    const at = <usize>i << 2
    const d = v128.load(dy + at)
    const x = v128.load(gate + at)
    const u = v128.load(up + at)
    const s = gateOf(activation, x)
    v128.store(dgate + at, dGate(activation, d, x, u, s))
    v128.store(dup + at, f32x4.mul(d, f32x4.mul(x, s)))
  }
  for (; i < end; i++) {
    const at = <usize>i << 2
    const d = v128.load32_zero(dy + at)
    const x = v128.load32_zero(gate + at)
    const u = v128.load32_zero(up + at)
    const s = gateOf(activation, x)
    v128.store_lane<f32>(dgate + at, dGate(activation, d, x, u, s), 0)
    v128.store_lane<f32>(dup + at, f32x4.mul(d, f32x4.mul(x, s)), 0)
  }
}

export function swigluBack(
  dy: usize, gate: usize, up: usize, dgate: usize, dup: usize, n: i32, activation: i32, thread: i32, threads: i32,
): void {
  if (activation == SILU) backAll(0, dy, gate, up, dgate, dup, n, thread, threads)
  else backAll(1, dy, gate, up, dgate, dup, n, thread, threads)
}
