import { byGroup, each, type Kernel, reduce64 } from './kernel.ts'

// Sums: a workgroup of 64 threads each, in an order that depends on nothing but the sizes.

/** Elements of one block of a sum. */
export const sumBlock = 4096

/** partial[b] = sum of a block (or of its squares). A workgroup a block. */
export const sumBlocks = byGroup(
  'sumBlocks',
  { x: 'float', y: 'floatOut' },
  ['n', 'squares'],
  `let end = min(p.n, (group + 1u) * ${sumBlock}u);
  var sum = 0.0;
  for (var i = group * ${sumBlock}u + local; i < end; i += 64u) {
    let v = x(i);
    sum += select(v, v * v, p.squares == 1u);
  }
  let total = sum64(local, sum);
  if (local == 0u) { set_y(group, total); }`,
  reduce64,
)

/** y[r] = sum of row r of x [rows, width]. A workgroup a row. */
export const sumRows = byGroup(
  'sumRows',
  { x: 'float', y: 'floatOut' },
  ['width'],
  `var sum = 0.0;
  for (var i = local; i < p.width; i += 64u) { sum += x(group * p.width + i); }
  let total = sum64(local, sum);
  if (local == 0u) { set_y(group, total); }`,
  reduce64,
)

/** y[c] (+)= Σ_r a[r, c]·b[r, c]; a thread a column. Without b its column sums. */
export const columnSums = (withB: boolean): Kernel =>
  each(
    `columnSums ${withB}`,
    { a: 'float', ...(withB && { b: 'float' as const }), y: 'floatOut' },
    ['rows', 'adds'],
    `var sum = 0.0;
  for (var r = 0u; r < p.rows; r++) {
    let at = r * p.n + i;
    sum += a(at)${withB ? ' * b(at)' : ''};
  }
  if (p.adds == 1u) { sum += y(i); }
  set_y(i, sum);`,
  )

/** y[s] = Σ x[r] where segments[r] = s; a thread a segment. */
export const segmentSum = each(
  'segmentSum',
  { x: 'float', segments: 'int', y: 'floatOut' },
  ['rows'],
  `var sum = 0.0;
  for (var r = 0u; r < p.rows; r++) {
    if (segments(r) == i32(i)) { sum += x(r); }
  }
  set_y(i, sum);`,
)
