import { byGroup, each, type Kernel, reduce64, workgroup } from './kernel.ts'

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
 * Along which axis an operand lies without gaps: whole words of it are read, four elements at a time. 'none': element by element.
 */
export type Along = 'inner' | 'outer' | 'none'

/** [4][4] of an operand for four steps of the inner axis: a column an outer index (`byOuter`), or a step. `at`: where its rows begin. */
const block = (x: 'a' | 'b', at: string, along: Along, byOuter: boolean): string => {
  const four = [0, 1, 2, 3]
  const step = (n: number) => `(k + ${n}u) * p.${x}_inner`
  if (along === 'none') {
    const element = (outer: number, n: number) => `${x}(${at}[${outer}] + ${step(n)})`
    const column = (n: number) => `vec4f(${four.map((m) => (byOuter ? element(n, m) : element(m, n))).join(', ')})`
    return `mat4x4f(${four.map(column).join(', ')})`
  }
  const columns = four.map((n) => `${x}4(${along === 'inner' ? `${at}[${n}] + k` : `${at}[0] + ${step(n)}`})`)
  const whole = `mat4x4f(${columns.join(', ')})`
  return (along === 'inner') === byOuter ? whole : `transpose(${whole})`
}

/**
 * y[r, c] = Σ_k a[r, k]·b[c, k] by strides, of any stored type: forward, both gradients and low-rank products are one kernel. A
 * thread computes 4·fours x 4 outputs in registers, from 4 x 4 of each operand at a time: what is read of b serves all its rows. The
 * inner axis is a multiple of 4, unless both operands are read element by element. 64 rows of q4 on two cores: 1.3 GFLOP/s on
 * SwiftShader, 4 on lavapipe; no GPU was at hand.
 */
export const matmul = (o: MatmulOptions, a: Along, b: Along, fours: number): Kernel => {
  const each = (text: (n: number) => string): string => Array.from({ length: fours }, (_, n) => text(n)).join('\n    ')
  // One step after the other: v * m would round otherwise.
  const added = (n: number): string =>
    [0, 1, 2, 3].flatMap((k) => [0, 1, 2, 3].map((i) => `t${n}[${i}] += m${n}[${i}][${k}] * v[${k}];`)).join(' ')
  const single = each((n) => `for (var i = 0u; i < 4u; i++) { t${n}[i] += a(a${n}_at[i] + k * p.a_inner) * v; }`)
  const inner =
    a === 'none' && b === 'none'
      ? `for (var k = k0; k < end; k++) {
      let v = vec4f(b(b_at.x + k * p.b_inner), b(b_at.y + k * p.b_inner), b(b_at.z + k * p.b_inner), b(b_at.w + k * p.b_inner));
      ${single}
    }`
      : `for (var k = k0; k < end; k += 4u) {
      let v = ${block('b', 'b_at', b, false)};
      ${each((n) => `let m${n} = ${block('a', `a${n}_at`, a, true)};\n      ${added(n)}`)}
    }`
  return {
    name: `${nameOf('matmul', o)} ${a} ${b} ${fours}`,
    args: args(o),
    params,
    code: /* wgsl */ `
fn store(r0: u32, c0: u32, s: mat4x4f) {
  for (var i = 0u; i < min(4u, p.rows - min(r0, p.rows)); i++) {
    for (var j = 0u; j < min(4u, p.columns - c0); j++) {
      let c = c0 + j;
      let at = (r0 + i) * p.y_row + c;
      set_y(at, ${finished(o, 's[i][j]', 'at', 'c')});
    }
  }
}
fn kernel(id: u32, local: u32, group: u32) {
  let tiles = (p.columns + 3u) / 4u;
  let r0 = (id / tiles) * ${4 * fours}u;
  let c0 = (id % tiles) * 4u;
  if (r0 >= p.rows) { return; }
  let four = vec4u(0u, 1u, 2u, 3u);
  let b_at = min(vec4u(c0) + four, vec4u(p.columns - 1u)) * p.b_column;
  ${each((n) => `let a${n}_at = min(vec4u(r0 + ${4 * n}u) + four, vec4u(p.rows - 1u)) * p.a_row; var s${n} = mat4x4f();`)}
  // Sums of sums of 16: rounding does not grow with the inner axis.
  for (var k0 = 0u; k0 < p.inner; k0 += 16u) {
    ${each((n) => `var t${n} = mat4x4f();`)}
    let end = min(k0 + 16u, p.inner);
    ${inner}
    ${each((n) => `s${n} += t${n};`)}
  }
  ${each((n) => `store(r0 + ${4 * n}u, c0, s${n});`)}
}`,
  }
}

export const matmulThreads = (rows: number, columns: number, fours: number): number =>
  Math.ceil(rows / (4 * fours)) * Math.ceil(columns / 4)

/** Steps of the inner axis that a workgroup of `matvec` takes at a time: eight a thread. */
const matvecStep = 8 * workgroup

/**
 * The same for 1 to 4 rows, both operands along the inner axis, a multiple of 8: a workgroup four output columns. Neighbouring
 * threads read neighbouring weights of a column, eight each; what they read serves all rows. One row of q4 on two cores with
 * SwiftShader: 896 x 896 in 13 ms, 4864 x 896 in 63, 896 x 4864 in 24 (0.12 to 0.36 GFLOP/s); no GPU was at hand.
 */
export const matvec = (o: MatmulOptions, rows: number): Kernel => {
  const all = Array.from({ length: rows }, (_, r) => r)
  const dots = (r: number) =>
    `vec4f(${[0, 1, 2, 3].map((c) => `dot(x${r}[0], w${c}[0]) + dot(x${r}[1], w${c}[1])`).join(', ')})`
  const step = (r: number) => `
    let x${r} = a8(${r}u * p.a_row + k);
    sum${r} += ${dots(r)};`
  const end = (r: number) => `
  let total${r} = sum64x4(local, sum${r});
  if (local < 4u && c < p.columns) {
    let at = ${r}u * p.y_row + c;
    set_y(at, ${finished(o, `total${r}[local]`, 'at', 'c')});
  }`
  return {
    name: `${nameOf('matvec', o)} ${rows}`,
    args: args(o),
    params,
    code: /* wgsl */ `${reduce64}
fn kernel(id: u32, local: u32, group: u32) {
  let c0 = group * 4u;
  let c = c0 + local;
  let b_at = min(vec4u(c0) + vec4u(0u, 1u, 2u, 3u), vec4u(p.columns - 1u)) * p.b_column;
  ${all.map((r) => `var sum${r} = vec4f();`).join(' ')}
  for (var k = 8u * local; k < p.inner; k += ${matvecStep}u) {
    ${[0, 1, 2, 3].map((n) => `let w${n} = b8(b_at[${n}] + k);`).join(' ')}${all.map(step).join('')}
  }${all.map(end).join('')}
}`,
  }
}

/** h[r, q] = scale·x[r]·A of the adapter of row r, zeros for -1. A workgroup a row and q. */
export const loraDown = byGroup(
  'loraDown',
  { x: 'float', a: 'float', scale: 'float', adapters: 'int', h: 'floatOut' },
  ['inner', 'rank'],
  `let row = group / p.rank;
  let adapter = adapters(row);
  var sum = 0.0;
  if (adapter >= 0) {
    let at = (u32(adapter) * p.rank + group % p.rank) * p.inner;
    for (var k = local; k < p.inner; k += 64u) { sum += x(row * p.inner + k) * a(at + k); }
  }
  let total = sum64(local, sum);
  if (local == 0u) { set_h(group, select(0.0, scale(u32(max(adapter, 0))) * total, adapter >= 0)); }`,
  reduce64,
)

/** out[r, c] = y[r, c] + h[r]·B of the adapter of row r, y for -1. A thread an element. */
export const loraUp = each(
  'loraUp',
  { y: 'float', h: 'float', b: 'float', adapters: 'int', out: 'floatOut' },
  ['columns', 'rank'],
  `let row = i / p.columns;
  let adapter = adapters(row);
  var sum = 0.0;
  if (adapter >= 0) {
    let at = (u32(adapter) * p.columns + i % p.columns) * p.rank;
    for (var q = 0u; q < p.rank; q++) { sum += h(row * p.rank + q) * b(at + q); }
  }
  set_out(i, y(i) + sum);`,
)

/** Whether `matvec` takes a product: fewer steps would leave threads idle (nano on SwiftShader: three times the time of `matmul`). */
export const fitsMatvec = (rows: number, inner: number): boolean => rows <= 4 && inner >= matvecStep && inner % 8 === 0
export const matvecGroups = (columns: number): number => Math.ceil(columns / 4)

/** norm[c] = length of row c of w + scale·B·A. A workgroup a row. */
export const doraNorm = byGroup(
  'doraNorm',
  { w: 'float', a: 'float', b: 'float', factor: 'float', y: 'floatOut' },
  ['columns', 'rank'],
  `var squares = 0.0;
  for (var k = local; k < p.columns; k += 64u) {
    var low = 0.0;
    for (var q = 0u; q < p.rank; q++) { low += b(group * p.rank + q) * a(q * p.columns + k); }
    let v = w(group * p.columns + k) + factor(0u) * low;
    squares += v * v;
  }
  let total = sum64(local, squares);
  if (local == 0u) { set_y(group, sqrt(total)); }`,
  reduce64,
)

/** out = y·gain + bias by column; a thread an element. */
export const scaleColumns = (withBias: boolean): Kernel =>
  each(
    `scaleColumns ${withBias}`,
    { y: 'float', gain: 'float', ...(withBias && { bias: 'float' as const }), out: 'floatOut' },
    ['columns'],
    `let c = i % p.columns;\n  set_out(i, y(i) * gain(c)${withBias ? ' + bias(c)' : ''});`,
  )
