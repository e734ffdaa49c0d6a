import { byGroup, each, type Kernel, reduce64 } from './kernel.ts'

// Rows: gathering, embedding, norms, rotary embedding, the key/value cache.

/** y[r] = x[rows[r]], zeros for -1. A thread an element. */
export const gatherRows = each(
  'gatherRows',
  { x: 'float', rows: 'int', y: 'floatOut' },
  ['columns'],
  `let row = rows(i / p.columns);
  if (row < 0) { set_y(i, 0.0); return; }
  set_y(i, x(u32(row) * p.columns + i % p.columns));`,
)

/** y[v] = Σ dy[r] where rows[r] = v. A thread an element of y. */
export const scatterRows = each(
  'scatterRows',
  { dy: 'float', rows: 'int', y: 'floatOut' },
  ['columns', 'count'],
  `let row = i32(i / p.columns);
  let c = i % p.columns;
  var sum = 0.0;
  for (var r = 0u; r < p.count; r++) {
    if (rows(r) == row) { sum += dy(r * p.columns + c); }
  }
  set_y(i, sum);`,
)

/** y[n] = table[ids[n]] of the rows first .. first + rows of a table that may be one of several parts. A thread an element. */
export const embed = each(
  'embed',
  { ids: 'int', table: 'float', y: 'floatOut' },
  ['columns', 'first', 'rows'],
  `let id = u32(ids(i / p.columns));
  if (id < p.first || id >= p.first + p.rows) { return; }
  set_y(i, table((id - p.first) * p.columns + i % p.columns));`,
)

/** grad[ids[n]] += dy[n]: the first token of an id adds up all of them, in their order. A thread an element of dy. */
export const embedBack = each(
  'embedBack',
  { dy: 'float', ids: 'int', grad: 'floatOut' },
  ['count', 'columns'],
  `let token = i / p.columns;
  let c = i % p.columns;
  let id = ids(token);
  for (var before = 0u; before < token; before++) {
    if (ids(before) == id) { return; }
  }
  let at = u32(id) * p.columns + c;
  var sum = grad(at);
  for (var other = token; other < p.count; other++) {
    if (ids(other) == id) { sum += dy(other * p.columns + c); }
  }
  set_grad(at, sum);`,
)

/** y = x/rms(x)·(offset + w) and 1/rms. A workgroup a row. */
export const rmsnorm = byGroup(
  'rmsnorm',
  { x: 'float', w: 'float', y: 'floatOut', rstd: 'floatOut' },
  ['columns', 'f_eps', 'f_offset'],
  `var squares = 0.0;
  for (var c = local; c < p.columns; c += 64u) {
    let v = x(group * p.columns + c);
    squares += v * v;
  }
  let s = 1.0 / sqrt(sum64(local, squares) / f32(p.columns) + p.f_eps);
  for (var c = local; c < p.columns; c += 64u) { set_y(group * p.columns + c, x(group * p.columns + c) * s * (p.f_offset + w(c))); }
  if (local == 0u) { set_rstd(group, s); }`,
  reduce64,
)

/** dx = s·(dy·v - x·s²·(dy·v·x)/C), v = offset + w. A workgroup a row. */
export const rmsnormBack = byGroup(
  'rmsnormBack',
  { dy: 'float', x: 'float', w: 'float', rstd: 'float', dx: 'floatOut' },
  ['columns', 'f_offset'],
  `let first = group * p.columns;
  var part = 0.0;
  for (var c = local; c < p.columns; c += 64u) { part += dy(first + c) * (p.f_offset + w(c)) * x(first + c); }
  let product = sum64(local, part);
  let s = rstd(group);
  for (var c = local; c < p.columns; c += 64u) {
    set_dx(first + c, s * (dy(first + c) * (p.f_offset + w(c)) - x(first + c) * s * s * product / f32(p.columns)));
  }`,
  reduce64,
)

/** grad[c] += Σ_r dy·x·rstd. A thread a column. */
export const rmsnormBackWeight = each(
  'rmsnormBackWeight',
  { dy: 'float', x: 'float', rstd: 'float', grad: 'floatOut' },
  ['rows'],
  `var sum = grad(i);
  for (var r = 0u; r < p.rows; r++) { sum += dy(r * p.n + i) * x(r * p.n + i) * rstd(r); }
  set_grad(i, sum);`,
)

/** Half-split rotation; a thread a pair. Rows at position -1 pass through. */
export const rope = each(
  'rope',
  { x: 'float', positions: 'int', table: 'float', y: 'floatOut' },
  ['heads', 'd', 'f_sign'],
  `let half = p.d / 2u;
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
  set_y(at + half, b * c + a * s);`,
)

/**
 * cache[r][g][positions[r]] = x[r][g] of a cache [slots, kvHeads, capacity, d], or of one slot in place of r; a thread an element of x,
 * or two where the cache has halves: a word.
 */
export const kvWrite = (toOneSlot: boolean, asHalves: boolean): Kernel =>
  each(
    `kvWrite${toOneSlot ? ' slot' : ''}${asHalves ? ' halves' : ''}`,
    { cache: 'floatOut', x: 'float', positions: 'int', ...(toOneSlot && { slot: 'int' as const }) },
    ['kv_heads', 'capacity', 'd'],
    `let e = ${asHalves ? '2u * i' : 'i'};
  let r = e / (p.kv_heads * p.d);
  let position = positions(r);
  if (position < 0) { return; }
  let head = ${toOneSlot ? 'u32(slot(0u)) * p.kv_heads + (e / p.d) % p.kv_heads' : 'e / p.d'};
  let at = (head * p.capacity + u32(position)) * p.d + e % p.d;
  ${asHalves ? 'set_cache2(at, x(e), x(e + 1u))' : 'set_cache(at, x(e))'};`,
  )

/** Copies the first positions of slots to others, one after the other; a thread a word of a slot [kvHeads, capacity, d words]. */
export const kvCopy = each(
  'kvCopy',
  { cache: 'intOut', origin: 'int', to: 'int', length: 'int' },
  ['count', 'capacity', 'd'],
  `let position = i32((i / p.d) % p.capacity);
  for (var m = 0u; m < p.count; m++) {
    if (origin(m) < 0 || position >= length(m)) { continue; }
    set_cache(u32(to(m)) * p.n + i, cache(u32(origin(m)) * p.n + i));
  }`,
)
