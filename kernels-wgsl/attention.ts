import { LOG_ZERO } from '../sdk/log-zero.ts'
import { each, expo, type Kernel, ln, reduce64 } from './kernel.ts'

// Attention with an online softmax, never N x N in memory. D is written into the code: sums of a head are in registers.

const sizes = ['heads', 'kv_heads', 'f_scale', 'window'] as const

/** The first position that token i sees. */
const firstSeen = /* wgsl */ `
fn first_seen(i: u32) -> u32 { return max(u32(starts(i)), i + 1u - min(i + 1u, p.window)); }
`

/** Causal within a packed segment; a thread a token and head. */
export const attention = (d: number): Kernel => ({
  name: `attention ${d}`,
  args: { q: 'float', k: 'float', v: 'float', starts: 'int', out: 'floatOut', lse: 'floatOut' },
  params: ['n', ...sizes],
  code: /* wgsl */ `${expo}${ln}${firstSeen}
fn kernel(id: u32, local: u32, group: u32) {
  if (id >= p.n * p.heads) { return; }
  let i = id / p.heads;
  let g = (id % p.heads) / (p.heads / p.kv_heads);
  let query = id * ${d}u;
  var top = ${LOG_ZERO};
  var total = 0.0;
  var acc: array<f32, ${d}>;
  for (var j = first_seen(i); j <= i; j++) {
    let at = (j * p.kv_heads + g) * ${d}u;
    var s = 0.0;
    for (var c = 0u; c < ${d}u; c++) { s += q(query + c) * k(at + c); }
    s *= p.f_scale;
    let higher = max(top, s);
    let old = expo(top - higher);
    let weight = expo(s - higher);
    total = total * old + weight;
    for (var c = 0u; c < ${d}u; c++) { acc[c] = acc[c] * old + weight * v(at + c); }
    top = higher;
  }
  set_lse(id, top + ln(total));
  for (var c = 0u; c < ${d}u; c++) { set_out(query + c, acc[c] / total); }
}`,
})

/**
 * A row over the positions, or its window of them, of a slot of the cache [slots, kvHeads, capacity, d]: of slot r, or of one slot for all rows. A workgroup a
 * row and head. In chunks of 64 positions each thread scores one key, then sums the values of its own columns. Position -1: zeros.
 */
export const attentionCached = (d: number, ofOneSlot: boolean): Kernel => {
  const own = Math.ceil(d / 64)
  const score =
    d % 4 === 0
      ? `for (var c = 0u; c < ${d}u; c += 4u) { s += dot(vec4f(query[c], query[c + 1u], query[c + 2u], query[c + 3u]), k4(at + c)); }`
      : `for (var c = 0u; c < ${d}u; c++) { s += query[c] * k(at + c); }`
  return {
    name: `attentionCached ${d}${ofOneSlot ? ' slot' : ''}`,
    args: {
      q: 'float',
      k: 'float',
      v: 'float',
      positions: 'int',
      ...(ofOneSlot && { slot: 'int' as const }),
      out: 'floatOut',
    },
    params: ['capacity', ...sizes],
    code: /* wgsl */ `${expo}${reduce64}
var<workgroup> query: array<f32, ${d}>;
var<workgroup> weights: array<f32, 64>;
var<workgroup> position: i32;
fn kernel(id: u32, local: u32, group: u32) {
  let r = group / p.heads;
  let g = (group % p.heads) / (p.heads / p.kv_heads);
  for (var c = local; c < ${d}u; c += 64u) { query[c] = q(group * ${d}u + c); }
  if (local == 0u) { position = positions(r); }
  let keys = u32(workgroupUniformLoad(&position) + 1);
  let base = (${ofOneSlot ? 'u32(slot(0u))' : 'r'} * p.kv_heads + g) * p.capacity;
  var top = ${LOG_ZERO};
  var total = 0.0;
  var acc: array<f32, ${own}>;
  for (var first = keys - min(keys, p.window); first < keys; first += 64u) {
    let j = first + local;
    var s = ${LOG_ZERO};
    if (j < keys) {
      let at = (base + j) * ${d}u;
      s = 0.0;
      ${score}
      s *= p.f_scale;
    }
    let higher = max(top, max64(local, s));
    let old = expo(top - higher);
    let weight = expo(s - higher);
    weights[local] = weight;
    // Behind its barriers all weights are there.
    total = total * old + sum64(local, weight);
    for (var n = 0u; n < ${own}u; n++) {
      let c = local + 64u * n;
      if (c >= ${d}u) { break; }
      var sum = 0.0;
      for (var m = 0u; m < min(64u, keys - first); m++) { sum += weights[m] * v((base + first + m) * ${d}u + c); }
      acc[n] = acc[n] * old + sum;
    }
    top = higher;
    workgroupBarrier();
  }
  for (var n = 0u; n < ${own}u; n++) {
    let c = local + 64u * n;
    if (c < ${d}u) { set_out(group * ${d}u + c, select(acc[n] / total, 0.0, keys == 0u)); }
  }
}`,
  }
}

/** delta[i, h] = dout·out; a thread a token and head. */
export const attentionDelta = (d: number): Kernel =>
  each(
    `attentionDelta ${d}`,
    { dout: 'float', out: 'float', delta: 'floatOut' },
    [],
    `var sum = 0.0;
  for (var c = i * ${d}u; c < (i + 1u) * ${d}u; c++) { sum += dout(c) * out(c); }
  set_delta(i, sum);`,
  )

const scores = (d: number) => /* wgsl */ `
    var s = 0.0;
    var dp = 0.0;
    for (var c = 0u; c < ${d}u; c++) { s += q(query + c) * k(at + c); dp += dout(query + c) * v(at + c); }
    let weight = expo(s * p.f_scale - lse(row));
    let ds = weight * (dp - delta(row)) * p.f_scale;`

const backArgs = {
  dout: 'float',
  q: 'float',
  k: 'float',
  v: 'float',
  lse: 'float',
  delta: 'float',
  starts: 'int',
} as const

/** dq; a thread a token and head. */
export const attentionBackQuery = (d: number): Kernel => ({
  name: `attentionBackQuery ${d}`,
  args: { ...backArgs, dq: 'floatOut' },
  params: ['n', ...sizes],
  code: /* wgsl */ `${expo}${firstSeen}
fn kernel(row: u32, local: u32, group: u32) {
  if (row >= p.n * p.heads) { return; }
  let i = row / p.heads;
  let g = (row % p.heads) / (p.heads / p.kv_heads);
  let query = row * ${d}u;
  var acc: array<f32, ${d}>;
  for (var j = first_seen(i); j <= i; j++) {
    let at = (j * p.kv_heads + g) * ${d}u;
    ${scores(d)}
    for (var c = 0u; c < ${d}u; c++) { acc[c] += ds * k(at + c); }
  }
  for (var c = 0u; c < ${d}u; c++) { set_dq(query + c, acc[c]); }
}`,
})

/** dk and dv; a thread a token and key/value head, over all later tokens that look back so far. */
export const attentionBackKeys = (d: number): Kernel => ({
  name: `attentionBackKeys ${d}`,
  args: { ...backArgs, dk: 'floatOut', dv: 'floatOut' },
  params: ['n', ...sizes],
  code: /* wgsl */ `${expo}${firstSeen}
fn kernel(id: u32, local: u32, group: u32) {
  if (id >= p.n * p.kv_heads) { return; }
  let j = id / p.kv_heads;
  let g = id % p.kv_heads;
  let shared_by = p.heads / p.kv_heads;
  let at = id * ${d}u;
  var keys: array<f32, ${d}>;
  var values: array<f32, ${d}>;
  for (var i = j; i < p.n; i++) {
    if (first_seen(i) > j) { continue; }
    for (var m = 0u; m < shared_by; m++) {
      let row = i * p.heads + g * shared_by + m;
      let query = row * ${d}u;
      ${scores(d)}
      for (var c = 0u; c < ${d}u; c++) {
        keys[c] += ds * q(query + c);
        values[c] += weight * dout(query + c);
      }
    }
  }
  for (var c = 0u; c < ${d}u; c++) { set_dk(at + c, keys[c]); set_dv(at + c, values[c]); }
}`,
})
