import { LOG_ZERO } from '../sdk/log-zero.ts'
import { byGroup, each, reduce64 } from './kernel.ts'

// Sampling from rows of logits. A workgroup a row; what must go in the order of ids its first thread does alone.

/** Order of floats as that of unsigned integers. */
const key = /* wgsl */ `
fn key(x: f32) -> u32 {
  let bits = bitcast<u32>(x + 0.0);
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}
`

/**
 * z = logits after the penalties [repetition, frequency, presence] of a row, for what its sequence has seen: counts[s, v] is twice how
 * often v was drawn, and one more where it occurs in the prompt. A thread an element.
 */
export const penalize = each(
  'penalize',
  { logits: 'float', penalties: 'float', counts: 'int', z: 'floatOut' },
  ['vocabulary'],
  `let s = 3u * (i / p.vocabulary);
  let seen = counts(i);
  var x = logits(i);
  if (seen > 0) {
    let repetition = penalties(s);
    x = select(x * repetition, x / repetition, x > 0.0);
  }
  if (seen > 1) { x -= penalties(s + 1u) * f32(seen >> 1u) + penalties(s + 2u); }
  set_z(i, x);`,
)

/** counts[s, id[s]] += 2: what was drawn. A thread a row. */
export const countDrawn = each(
  'countDrawn',
  { id: 'int', counts: 'intOut' },
  ['vocabulary'],
  `let at = i * p.vocabulary + u32(id(i));
  set_counts(at, counts(at) + 2);`,
)

/** z += the edits of a row, one after the other. A thread a row. */
export const editLogits = each(
  'editLogits',
  { z: 'floatOut', row: 'int', token: 'int', bias: 'float' },
  ['vocabulary', 'edits'],
  `for (var e = 0u; e < p.edits; e++) {
    if (row(e) != i32(i)) { continue; }
    let at = i * p.vocabulary + u32(token(e));
    set_z(at, z(at) + bias(e));
  }`,
)

/**
 * Temperature, top-k, top-p, min-p, then inverse CDF in id order, a workgroup a row. Thresholds of top-k and top-p are found by bisecting
 * the 32 bits of the logits' order: no sorting, and no searching where they are off. A draw finds its run of ids among 64, then its id.
 * A row of 32,000 ids on two cores with SwiftShader: 2 ms greedy or at a temperature alone, 23 ms with top-k and top-p; no GPU was at hand.
 */
export const sample = byGroup(
  'sample',
  {
    z: 'float',
    temperature: 'float',
    topK: 'int',
    topP: 'float',
    minP: 'float',
    uniforms: 'float',
    id: 'intOut',
    logProb: 'floatOut',
    truncatedLogProb: 'floatOut',
  },
  ['vocabulary'],
  `let first = group * p.vocabulary;
  if (local == 0u) { settings = vec4f(temperature(group), f32(topK(group)), topP(group), minP(group)); }
  // The same for all threads: what is off is not searched for.
  let asked = workgroupUniformLoad(&settings);
  let greedy = asked.x == 0.0;
  let inverse_t = select(1.0 / max(asked.x, 1e-30), 1.0, greedy);
  var best = -1e38;
  for (var v = local; v < p.vocabulary; v += 64u) { best = max(best, z(first + v) * inverse_t); }
  let top = max64(local, best);
  let all = mass(local, first, inverse_t, top, 0u, false);
  // The lowest order that stays.
  var least = 0u;
  let k = asked.y;
  let limited = k > 0.0 && k < f32(p.vocabulary);
  if (limited) {
    for (var bit = 31; bit >= 0; bit--) {
      let candidate = least | (1u << u32(bit));
      if (count(local, first, inverse_t, candidate) >= k) { least = candidate; }
    }
  }
  // The greatest order at and above which top-p's share lies: it stays, as many of it as the share needs.
  var ties = p.vocabulary;
  if (asked.z < 1.0) {
    let limit = asked.z * mass(local, first, inverse_t, top, least, false);
    var low = 0u;
    for (var bit = 31; bit >= 0; bit--) {
      let candidate = low | (1u << u32(bit));
      if (mass(local, first, inverse_t, top, max(candidate, least), false) >= limit) { low = candidate; }
    }
    low = min(low, key(top));
    let above = mass(local, first, inverse_t, top, low, true);
    var equal = 0.0;
    for (var v = local; v < p.vocabulary; v += 64u) {
      let x = z(first + v) * inverse_t;
      if (key(x) == low) { equal = max(equal, exp(x - top)); }
    }
    equal = max64(local, equal);
    least = low;
    ties = u32(max(1.0, ceil((limit - above) / max(equal, 1e-30))));
  }
  // Greedy: the lowest id of the greatest logit. Ids are exact in f32.
  var lowest = -f32(p.vocabulary);
  if (greedy) {
    for (var v = local; v < p.vocabulary; v += 64u) {
      if (z(first + v) * inverse_t == top) { lowest = -f32(v); break; }
    }
  }
  var chosen = u32(-max64(local, lowest));
  // What stays, by runs of ids: of ties it depends on the runs before how many do.
  let width = (p.vocabulary + 63u) / 64u;
  let shares = asked.w;
  var run = Run();
  for (var v = local * width; v < min((local + 1u) * width, p.vocabulary); v++) {
    let x = z(first + v) * inverse_t;
    let order = key(x);
    if (order < least) { continue; }
    let e = exp(x - top);
    let stays = select(0.0, e, e >= shares || x == top);
    if (order == least) { run.ties += 1u; run.tie = stays; } else { run.mass += stays; }
  }
  runs[local] = run;
  workgroupBarrier();
  if (local != 0u) { return; }
  var kept = 0.0;
  var left = ties;
  for (var r = 0u; r < 64u; r++) {
    let own = min(left, runs[r].ties);
    left -= own;
    runs[r].mass += f32(own) * runs[r].tie;
    kept += runs[r].mass;
  }
  if (!greedy) {
    let wanted = uniforms(group) * kept;
    // The run in which it lies, with the mass and the ties before it; the last one where rounding leaves none.
    var at = 0u;
    var before = 0.0;
    var sum = 0.0;
    var ties_before = 0u;
    var seen = 0u;
    for (var r = 0u; r < 64u; r++) {
      if (runs[r].mass > 0.0) { at = r; before = sum; ties_before = seen; }
      sum += runs[r].mass;
      seen += runs[r].ties;
      if (sum > wanted) { break; }
    }
    sum = before;
    left = ties - min(ties, ties_before);
    for (var v = at * width; v < min((at + 1u) * width, p.vocabulary); v++) {
      let x = z(first + v) * inverse_t;
      let order = key(x);
      if (order < least || (order == least && left == 0u)) { continue; }
      if (order == least) { left -= 1u; }
      let e = exp(x - top);
      if (e < shares && x != top) { continue; }
      sum += e;
      if (e > 0.0) { chosen = v; }
      if (sum > wanted) { break; }
    }
  }
  let own = z(first + chosen) * inverse_t - top;
  set_id(group, i32(chosen));
  set_logProb(group, own - log(all));
  set_truncatedLogProb(group, own - log(kept));`,
  `${reduce64}${key}/** Mass of the ids whose order is at least (or above) a key. */
fn mass(local: u32, first: u32, inverse_t: f32, top: f32, least: u32, above: bool) -> f32 {
  var sum = 0.0;
  for (var v = local; v < p.vocabulary; v += 64u) {
    let x = z(first + v) * inverse_t;
    let order = key(x);
    if (order > least || (order == least && !above)) { sum += exp(x - top); }
  }
  return sum64(local, sum);
}
fn count(local: u32, first: u32, inverse_t: f32, least: u32) -> f32 {
  var sum = 0.0;
  for (var v = local; v < p.vocabulary; v += 64u) {
    if (key(z(first + v) * inverse_t) >= least) { sum += 1.0; }
  }
  return sum64(local, sum);
}
struct Run { mass: f32, ties: u32, tie: f32 }
var<workgroup> runs: array<Run, 64>;
var<workgroup> settings: vec4f;
`,
)

/** The k likeliest ids of each row by k passes, lower ids first among equals, and the mass of the rest. A workgroup a row. */
export const topLogProbs = byGroup(
  'topLogProbs',
  { z: 'float', temperature: 'float', ids: 'intOut', logProbs: 'floatOut', tail: 'floatOut' },
  ['vocabulary', 'k'],
  `let first = group * p.vocabulary;
  let inverse_t = 1.0 / temperature(0u);
  var best = -1e38;
  for (var v = local; v < p.vocabulary; v += 64u) { best = max(best, z(first + v) * inverse_t); }
  let top = max64(local, best);
  var part = 0.0;
  for (var v = local; v < p.vocabulary; v += 64u) { part += exp(z(first + v) * inverse_t - top); }
  let total = top + log(sum64(local, part));
  var last = 1e38;
  var last_id = 0u;
  for (var j = 0u; j < p.k; j++) {
    // The greatest that comes after the last one: less, or equal with a higher id.
    var mine = -1e38;
    var mine_id = p.vocabulary;
    for (var v = local; v < p.vocabulary; v += 64u) {
      let x = z(first + v) * inverse_t;
      if ((x < last || (x == last && v > last_id)) && x > mine) { mine = x; mine_id = v; }
    }
    let greatest = max64(local, mine);
    where_[local] = select(p.vocabulary, mine_id, mine == greatest);
    workgroupBarrier();
    for (var half = 32u; half > 0u; half = half / 2u) {
      if (local < half) { where_[local] = min(where_[local], where_[local + half]); }
      workgroupBarrier();
    }
    last = greatest;
    last_id = where_[0];
    workgroupBarrier();
    if (local == 0u) {
      set_ids(group * p.k + j, i32(last_id));
      set_logProbs(group * p.k + j, last - total);
    }
  }
  var outer = -1e38;
  for (var v = local; v < p.vocabulary; v += 64u) {
    let x = z(first + v) * inverse_t;
    if (x < last || (x == last && v > last_id)) { outer = max(outer, x); }
  }
  let most = max64(local, outer);
  var rest = 0.0;
  for (var v = local; v < p.vocabulary; v += 64u) {
    let x = z(first + v) * inverse_t;
    if (x < last || (x == last && v > last_id)) { rest += exp(x - most); }
  }
  let left = sum64(local, rest);
  if (local == 0u) { set_tail(group, select(${LOG_ZERO}, most + log(left) - total, p.k < p.vocabulary)); }`,
  `${reduce64}var<workgroup> where_: array<u32, 64>;
`,
)

/** Draws by inverse CDF for uniforms that ascend. A thread a row, in the order of ids. */
export const drawTokens = each(
  'drawTokens',
  { z: 'float', temperature: 'float', uniforms: 'float', ids: 'intOut' },
  ['vocabulary', 'draws'],
  `let first = i * p.vocabulary;
  let inverse_t = 1.0 / temperature(0u);
  var top = -1e38;
  for (var v = 0u; v < p.vocabulary; v++) { top = max(top, z(first + v) * inverse_t); }
  var total = 0.0;
  for (var v = 0u; v < p.vocabulary; v++) { total += exp(z(first + v) * inverse_t - top); }
  var sum = 0.0;
  var id = 0u;
  var v = 0u;
  for (var n = 0u; n < p.draws; n++) {
    let wanted = uniforms(i * p.draws + n) * total;
    while (v < p.vocabulary && sum <= wanted) {
      let e = exp(z(first + v) * inverse_t - top);
      if (e > 0.0) { sum += e; id = v; }
      v++;
    }
    set_ids(i * p.draws + n, i32(id));
  }`,
)
