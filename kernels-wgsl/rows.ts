import { type Kernel, reduce64 } from './kernel.ts'

// Rows: gathering, embedding, norms, rotary embedding, the key/value cache.

/** y[r] = x[rows[r]], zeros for -1. A thread an element. */
export const gatherRows: Kernel = {
  name: 'gatherRows',
  args: { x: 'float', rows: 'int', y: 'floatOut' },
  params: ['n', 'columns'],
  workgroup: 64,
  code: /* wgsl */ `
fn kernel(i: u32, local: u32, group: u32) {
  if (i >= p.n) { return; }
  let row = rows(i / p.columns);
  if (row < 0) { set_y(i, 0.0); return; }
  set_y(i, x(u32(row) * p.columns + i % p.columns));
}`,
}

/** y[v] = Σ dy[r] where rows[r] = v. A thread an element of y. */
export const scatterRows: Kernel = {
  name: 'scatterRows',
  args: { dy: 'float', rows: 'int', y: 'floatOut' },
  params: ['n', 'columns', 'count'],
  workgroup: 64,
  code: /* wgsl */ `
fn kernel(i: u32, local: u32, group: u32) {
  if (i >= p.n) { return; }
  let row = i32(i / p.columns);
  let c = i % p.columns;
  var sum = 0.0;
  for (var r = 0u; r < p.count; r++) {
    if (rows(r) == row) { sum += dy(r * p.columns + c); }
  }
  set_y(i, sum);
}`,
}

/** y[n] = table[ids[n]] of the rows first .. first + rows of a table that may be one of several parts. A thread an element. */
export const embed: Kernel = {
  name: 'embed',
  args: { ids: 'int', table: 'float', y: 'floatOut' },
  params: ['n', 'columns', 'first', 'rows'],
  workgroup: 64,
  code: /* wgsl */ `
fn kernel(i: u32, local: u32, group: u32) {
  if (i >= p.n) { return; }
  let id = u32(ids(i / p.columns));
  if (id < p.first || id >= p.first + p.rows) { return; }
  set_y(i, table((id - p.first) * p.columns + i % p.columns));
}`,
}

/** grad[ids[n]] += dy[n]: the first token of an id adds up all of them, in their order. A thread an element of dy. */
export const embedBack: Kernel = {
  name: 'embedBack',
  args: { dy: 'float', ids: 'int', grad: 'floatOut' },
  params: ['count', 'columns'],
  workgroup: 64,
  code: /* wgsl */ `
fn kernel(i: u32, local: u32, group: u32) {
  if (i >= p.count * p.columns) { return; }
  let n = i / p.columns;
  let c = i % p.columns;
  let id = ids(n);
  for (var before = 0u; before < n; before++) {
    if (ids(before) == id) { return; }
  }
  let at = u32(id) * p.columns + c;
  var sum = grad(at);
  for (var other = n; other < p.count; other++) {
    if (ids(other) == id) { sum += dy(other * p.columns + c); }
  }
  set_grad(at, sum);
}`,
}

/** y = x/rms(x)·w and 1/rms. A workgroup a row. */
export const rmsnorm: Kernel = {
  name: 'rmsnorm',
  args: { x: 'float', w: 'float', y: 'floatOut', rstd: 'floatOut' },
  params: ['columns', 'f_eps'],
  workgroup: 64,
  code: /* wgsl */ `${reduce64}
fn kernel(id: u32, local: u32, row: u32) {
  var squares = 0.0;
  for (var c = local; c < p.columns; c += 64u) {
    let v = x(row * p.columns + c);
    squares += v * v;
  }
  let s = 1.0 / sqrt(sum64(local, squares) / f32(p.columns) + p.f_eps);
  for (var c = local; c < p.columns; c += 64u) { set_y(row * p.columns + c, x(row * p.columns + c) * s * w(c)); }
  if (local == 0u) { set_rstd(row, s); }
}`,
}

/** dx = s·(dy·w - x·s²·(dy·w·x)/C). A workgroup a row. */
export const rmsnormBack: Kernel = {
  name: 'rmsnormBack',
  args: { dy: 'float', x: 'float', w: 'float', rstd: 'float', dx: 'floatOut' },
  params: ['columns'],
  workgroup: 64,
  code: /* wgsl */ `${reduce64}
fn kernel(id: u32, local: u32, row: u32) {
  let first = row * p.columns;
  var part = 0.0;
  for (var c = local; c < p.columns; c += 64u) { part += dy(first + c) * w(c) * x(first + c); }
  let product = sum64(local, part);
  let s = rstd(row);
  for (var c = local; c < p.columns; c += 64u) {
    set_dx(first + c, s * (dy(first + c) * w(c) - x(first + c) * s * s * product / f32(p.columns)));
  }
}`,
}

/** grad[c] += Σ_r dy·x·rstd. A thread a column. */
export const rmsnormBackWeight: Kernel = {
  name: 'rmsnormBackWeight',
  args: { dy: 'float', x: 'float', rstd: 'float', grad: 'floatOut' },
  params: ['rows', 'columns'],
  workgroup: 64,
  code: /* wgsl */ `
fn kernel(c: u32, local: u32, group: u32) {
  if (c >= p.columns) { return; }
  var sum = grad(c);
  for (var r = 0u; r < p.rows; r++) { sum += dy(r * p.columns + c) * x(r * p.columns + c) * rstd(r); }
  set_grad(c, sum);
}`,
}

/** Half-split rotation; a thread a pair. Rows at position -1 pass through. */
export const rope: Kernel = {
  name: 'rope',
  args: { x: 'float', positions: 'int', table: 'float', y: 'floatOut' },
  params: ['n', 'heads', 'd', 'f_sign'],
  workgroup: 64,
  code: /* wgsl */ `
fn kernel(i: u32, local: u32, group: u32) {
  let half = p.d / 2u;
  if (i >= p.n) { return; }
  let row = i / (p.heads * half);
  let at = (i / half) * p.d + i % half;
  let a = x(at);
  let b = x(at + half);
  let position = positions(row);
  if (position < 0) { set_y(at, a); set_y(at + half, b); return; }
  let angle = u32(position) * p.d + i % half;
  let c = table(angle);
  let s = table(angle + half) * p.f_sign;
  set_y(at, a * c - b * s);
  set_y(at + half, b * c + a * s);
}`,
}

/** cache[slots[r]][positions[r]] = x[r]; a thread an element. */
export const kvWrite: Kernel = {
  name: 'kvWrite',
  args: { cache: 'floatOut', x: 'float', slots: 'int', positions: 'int' },
  params: ['n', 'width', 'capacity'],
  workgroup: 64,
  code: /* wgsl */ `
fn kernel(i: u32, local: u32, group: u32) {
  if (i >= p.n) { return; }
  let r = i / p.width;
  let position = positions(r);
  if (position < 0) { return; }
  set_cache((u32(slots(r)) * p.capacity + u32(position)) * p.width + i % p.width, x(i));
}`,
}

/** Copies the first positions of slots to others, one after the other; a thread an element of a slot. */
export const kvCopy: Kernel = {
  name: 'kvCopy',
  args: { cache: 'floatOut', origin: 'int', to: 'int', length: 'int' },
  params: ['count', 'width', 'capacity'],
  workgroup: 64,
  code: /* wgsl */ `
fn kernel(i: u32, local: u32, group: u32) {
  let slot = p.capacity * p.width;
  if (i >= slot) { return; }
  for (var m = 0u; m < p.count; m++) {
    if (origin(m) < 0 || i >= u32(length(m)) * p.width) { continue; }
    set_cache(u32(to(m)) * slot + i, cache(u32(origin(m)) * slot + i));
  }
}`,
}
