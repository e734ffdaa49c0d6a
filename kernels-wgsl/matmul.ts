import { type Kernel, reduce64 } from './kernel.ts'

export interface MatmulOptions {
  /** Another [rows, columns] that the product is added to; `y` itself where there are gradients to add to. */
  readonly start?: boolean
  readonly bias?: boolean
  /** A scalar that the product is multiplied by. */
  readonly factor?: boolean
  readonly adds?: boolean
}

const args = ({ start, bias, factor }: MatmulOptions): Kernel['args'] => ({
  a: 'float',
  b: 'float',
  ...(bias && { bias: 'float' }),
  ...(factor && { factor: 'float' }),
  ...(start && { start: 'float' }),
  y: 'floatOut',
})
const nameOf = (kind: string, o: MatmulOptions): string =>
  [kind, o.start && 'start', o.bias && 'bias', o.factor && 'factor', o.adds && 'adds'].filter(Boolean).join(' ')
const params = ['rows', 'columns', 'inner', 'a_row', 'a_inner', 'b_column', 'b_inner', 'y_row']

const finished = ({ start, bias, factor, adds }: MatmulOptions, value: string, at: string, column: string): string =>
  [factor ? `(${value}) * factor(0u)` : value, bias && `bias(${column})`, start && `start(${at})`, adds && `y(${at})`]
    .filter(Boolean)
    .join(' + ')

/**
 * y[r, c] = Σ_k a[r, k]·b[c, k] by strides, of any stored type: forward, both gradients and low-rank products are one kernel. A
 * thread computes 4 x 4 outputs from registers, which suits software adapters (7 against 0.8 GFLOP/s with workgroup memory).
 */
export const matmul = (o: MatmulOptions): Kernel => ({
  name: nameOf('matmul', o),
  args: args(o),
  params,
  workgroup: 64,
  code: /* wgsl */ `
fn kernel(id: u32, local: u32, group: u32) {
  let tiles = (p.columns + 3u) / 4u;
  let r0 = (id / tiles) * 4u;
  let c0 = (id % tiles) * 4u;
  if (r0 >= p.rows) { return; }
  let last_r = p.rows - 1u;
  let last_c = p.columns - 1u;
  let ra = vec4u(r0, min(r0 + 1u, last_r), min(r0 + 2u, last_r), min(r0 + 3u, last_r)) * p.a_row;
  let cb = vec4u(c0, min(c0 + 1u, last_c), min(c0 + 2u, last_c), min(c0 + 3u, last_c)) * p.b_column;
  var s0 = vec4f(); var s1 = vec4f(); var s2 = vec4f(); var s3 = vec4f();
  // Sums of sums of 16: rounding does not grow with the inner axis.
  for (var k0 = 0u; k0 < p.inner; k0 += 16u) {
    var t0 = vec4f(); var t1 = vec4f(); var t2 = vec4f(); var t3 = vec4f();
    for (var k = k0; k < min(k0 + 16u, p.inner); k++) {
      let ka = k * p.a_inner;
      let kb = k * p.b_inner;
      let v = vec4f(b(cb.x + kb), b(cb.y + kb), b(cb.z + kb), b(cb.w + kb));
      t0 += a(ra.x + ka) * v; t1 += a(ra.y + ka) * v; t2 += a(ra.z + ka) * v; t3 += a(ra.w + ka) * v;
    }
    s0 += t0; s1 += t1; s2 += t2; s3 += t3;
  }
  for (var i = 0u; i < 4u; i++) {
    let r = r0 + i;
    if (r >= p.rows) { return; }
    var s = s0;
    if (i == 1u) { s = s1; } else if (i == 2u) { s = s2; } else if (i == 3u) { s = s3; }
    for (var j = 0u; j < 4u; j++) {
      let c = c0 + j;
      if (c >= p.columns) { break; }
      let at = r * p.y_row + c;
      set_y(at, ${finished(o, 's[j]', 'at', 'c')});
    }
  }
}`,
})

/** The same for few rows: a workgroup an output column, its threads along the inner axis. */
export const matvec = (o: MatmulOptions): Kernel => ({
  name: nameOf('matvec', o),
  args: args(o),
  params,
  workgroup: 64,
  code: /* wgsl */ `${reduce64}
fn kernel(id: u32, local: u32, c: u32) {
  for (var r = 0u; r < p.rows; r++) {
    var sum = 0.0;
    for (var k = local; k < p.inner; k += 64u) { sum += a(r * p.a_row + k * p.a_inner) * b(c * p.b_column + k * p.b_inner); }
    let total = sum64(local, sum);
    let at = r * p.y_row + c;
    if (local == 0u) { set_y(at, ${finished(o, 'total', 'at', 'c')}); }
  }
}`,
})

/** norm[c] = length of row c of w + scale·B·A. A workgroup a row. */
export const doraNorm: Kernel = {
  name: 'doraNorm',
  args: { w: 'float', a: 'float', b: 'float', factor: 'float', y: 'floatOut' },
  params: ['columns', 'rank'],
  workgroup: 64,
  code: /* wgsl */ `${reduce64}
fn kernel(id: u32, local: u32, row: u32) {
  var squares = 0.0;
  for (var k = local; k < p.columns; k += 64u) {
    var low = 0.0;
    for (var q = 0u; q < p.rank; q++) { low += b(row * p.rank + q) * a(q * p.columns + k); }
    let v = w(row * p.columns + k) + factor(0u) * low;
    squares += v * v;
  }
  let total = sum64(local, squares);
  if (local == 0u) { set_y(row, sqrt(total)); }
}`,
}

/** out = y·gain + bias by column; a thread an element. */
export const scaleColumns = (withBias: boolean): Kernel => ({
  name: `scaleColumns ${withBias}`,
  args: { y: 'float', gain: 'float', ...(withBias && { bias: 'float' as const }), out: 'floatOut' },
  params: ['n', 'columns'],
  workgroup: 64,
  code: /* wgsl */ `
fn kernel(i: u32, local: u32, group: u32) {
  if (i >= p.n) { return; }
  let c = i % p.columns;
  set_out(i, y(i) * gain(c)${withBias ? ' + bias(c)' : ''});
}`,
})
