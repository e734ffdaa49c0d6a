import { type Kernel, reduce64 } from './kernel.ts'

// Sums: a workgroup of 64 threads each, in an order that depends on nothing but the sizes.

/** partial[b] = sum of 4096 elements (or of their squares). */
export const sumBlocks: Kernel = {
  name: 'sumBlocks',
  args: { x: 'float', y: 'floatOut' },
  params: ['n', 'squares'],
  workgroup: 64,
  code: /* wgsl */ `${reduce64}
fn kernel(id: u32, local: u32, group: u32) {
  let end = min(p.n, (group + 1u) * 4096u);
  var sum = 0.0;
  for (var i = group * 4096u + local; i < end; i += 64u) {
    let v = x(i);
    sum += select(v, v * v, p.squares == 1u);
  }
  let total = sum64(local, sum);
  if (local == 0u) { set_y(group, total); }
}`,
}

/** y[r] = sum of row r of x [rows, width]. */
export const sumRows: Kernel = {
  name: 'sumRows',
  args: { x: 'float', y: 'floatOut' },
  params: ['width'],
  workgroup: 64,
  code: /* wgsl */ `${reduce64}
fn kernel(id: u32, local: u32, group: u32) {
  var sum = 0.0;
  for (var i = local; i < p.width; i += 64u) { sum += x(group * p.width + i); }
  let total = sum64(local, sum);
  if (local == 0u) { set_y(group, total); }
}`,
}

/** y[c] (+)= Σ_r a[r, c]·b[r, c]; a thread a column. Without b its column sums. */
export const columnSums = (withB: boolean): Kernel => ({
  name: `columnSums ${withB}`,
  args: { a: 'float', ...(withB && { b: 'float' as const }), y: 'floatOut' },
  params: ['rows', 'columns', 'adds'],
  workgroup: 64,
  code: /* wgsl */ `
fn kernel(c: u32, local: u32, group: u32) {
  if (c >= p.columns) { return; }
  var sum = 0.0;
  for (var r = 0u; r < p.rows; r++) {
    let i = r * p.columns + c;
    sum += a(i)${withB ? ' * b(i)' : ''};
  }
  if (p.adds == 1u) { sum += y(c); }
  set_y(c, sum);
}`,
})

/** y[s] = Σ x[r] where segments[r] = s; a thread a segment. */
export const segmentSum: Kernel = {
  name: 'segmentSum',
  args: { x: 'float', segments: 'int', y: 'floatOut' },
  params: ['rows', 'count'],
  workgroup: 64,
  code: /* wgsl */ `
fn kernel(s: u32, local: u32, group: u32) {
  if (s >= p.count) { return; }
  var sum = 0.0;
  for (var r = 0u; r < p.rows; r++) {
    if (segments(r) == i32(s)) { sum += x(r); }
  }
  set_y(s, sum);
}`,
}
