import { expo, type Kernel, ln } from './kernel.ts'

// Attention with an online softmax, never N x N in memory. D is written into the code: sums of a head are in registers.

const sizes = ['heads', 'kv_heads', 'f_scale'] as const

/** One query head over keys first..last, by a thread: `load` names the key's first element. */
const attend = (d: number, key: string, done: string) => /* wgsl */ `
  var top = -1e30;
  var total = 0.0;
  var acc: array<f32, ${d}>;
  for (var j = first; j <= last; j++) {
    let at = ${key};
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
  ${done}`

/** Causal within a packed segment; a thread a token and head. */
export const attention = (d: number): Kernel => ({
  name: `attention ${d}`,
  args: { q: 'float', k: 'float', v: 'float', starts: 'int', out: 'floatOut', lse: 'floatOut' },
  params: ['n', ...sizes],
  workgroup: 64,
  code: /* wgsl */ `${expo}${ln}
fn kernel(id: u32, local: u32, group: u32) {
  if (id >= p.n * p.heads) { return; }
  let i = id / p.heads;
  let h = id % p.heads;
  let g = h / (p.heads / p.kv_heads);
  let query = id * ${d}u;
  let first = u32(starts(i));
  let last = i;
  ${attend(
    d,
    `(j * p.kv_heads + g) * ${d}u`,
    `set_lse(id, top + ln(total));
  for (var c = 0u; c < ${d}u; c++) { set_out(query + c, acc[c] / total); }`,
  )}
}`,
})

/** A row over the positions of its cache slot; a thread a row and head. Position -1: zeros. */
export const attentionCached = (d: number): Kernel => ({
  name: `attentionCached ${d}`,
  args: { q: 'float', k: 'float', v: 'float', slots: 'int', positions: 'int', out: 'floatOut' },
  params: ['n', 'capacity', ...sizes],
  workgroup: 64,
  code: /* wgsl */ `${expo}${ln}
fn kernel(id: u32, local: u32, group: u32) {
  if (id >= p.n * p.heads) { return; }
  let r = id / p.heads;
  let g = (id % p.heads) / (p.heads / p.kv_heads);
  let query = id * ${d}u;
  if (positions(r) < 0) {
    for (var c = 0u; c < ${d}u; c++) { set_out(query + c, 0.0); }
    return;
  }
  let first = 0u;
  let last = u32(positions(r));
  let slot = u32(slots(r)) * p.capacity;
  ${attend(
    d,
    `((slot + j) * p.kv_heads + g) * ${d}u`,
    `for (var c = 0u; c < ${d}u; c++) { set_out(query + c, acc[c] / total); }`,
  )}
}`,
})

/** delta[i, h] = dout·out; a thread a token and head. */
export const attentionDelta = (d: number): Kernel => ({
  name: `attentionDelta ${d}`,
  args: { dout: 'float', out: 'float', delta: 'floatOut' },
  params: ['n'],
  workgroup: 64,
  code: /* wgsl */ `${expo}${ln}
fn kernel(id: u32, local: u32, group: u32) {
  if (id >= p.n) { return; }
  var sum = 0.0;
  for (var c = 0u; c < ${d}u; c++) { sum += dout(id * ${d}u + c) * out(id * ${d}u + c); }
  set_delta(id, sum);
}`,
})

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
  workgroup: 64,
  code: /* wgsl */ `${expo}${ln}
fn kernel(row: u32, local: u32, group: u32) {
  if (row >= p.n * p.heads) { return; }
  let i = row / p.heads;
  let g = (row % p.heads) / (p.heads / p.kv_heads);
  let query = row * ${d}u;
  var acc: array<f32, ${d}>;
  for (var j = u32(starts(i)); j <= i; j++) {
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
  workgroup: 64,
  code: /* wgsl */ `${expo}${ln}
fn kernel(id: u32, local: u32, group: u32) {
  if (id >= p.n * p.kv_heads) { return; }
  let j = id / p.kv_heads;
  let g = id % p.kv_heads;
  let shared_by = p.heads / p.kv_heads;
  let at = id * ${d}u;
  var keys: array<f32, ${d}>;
  var values: array<f32, ${d}>;
  for (var i = j; i < p.n; i++) {
    if (u32(starts(i)) > j) { continue; }
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
