import { type Kernel, reduce64 } from './kernel.ts'

// Sampling from rows of logits. A workgroup a row; what must go in the order of ids its first thread does alone.

/** Order of floats as that of unsigned integers. */
const key = /* wgsl */ `
fn key(x: f32) -> u32 {
  let bits = bitcast<u32>(x + 0.0);
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}
`

/** z = edited logits over the temperature; the edits of a row one after the other. A thread a row. */
export const editLogits: Kernel = {
  name: 'editLogits',
  args: { z: 'floatOut', row: 'int', token: 'int', factor: 'float', bias: 'float' },
  params: ['rows', 'vocabulary', 'edits'],
  workgroup: 64,
  code: /* wgsl */ `
fn kernel(s: u32, local: u32, group: u32) {
  if (s >= p.rows) { return; }
  for (var e = 0u; e < p.edits; e++) {
    if (row(e) != i32(s)) { continue; }
    let at = s * p.vocabulary + u32(token(e));
    let x = z(at);
    set_z(at, select(x * factor(e), x / factor(e), x > 0.0) + bias(e));
  }
}`,
}

/**
 * Temperature, top-k, top-p, min-p, then inverse CDF in id order. Thresholds of top-k and top-p are found by bisecting the 32 bits
 * of the logits' order: no sorting.
 */
export const sample: Kernel = {
  name: 'sample',
  args: {
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
  params: ['vocabulary'],
  workgroup: 64,
  code: /* wgsl */ `${reduce64}${key}
/** Mass of the ids whose order is at least (or above) a key. */
fn mass(local: u32, first: u32, heat: f32, top: f32, least: u32, above: bool) -> f32 {
  var sum = 0.0;
  for (var v = local; v < p.vocabulary; v += 64u) {
    let x = z(first + v) * heat;
    let order = key(x);
    if (order > least || (order == least && !above)) { sum += exp(x - top); }
  }
  return sum64(local, sum);
}
fn count(local: u32, first: u32, heat: f32, least: u32) -> f32 {
  var sum = 0.0;
  for (var v = local; v < p.vocabulary; v += 64u) {
    if (key(z(first + v) * heat) >= least) { sum += 1.0; }
  }
  return sum64(local, sum);
}
fn kernel(unused: u32, local: u32, s: u32) {
  let first = s * p.vocabulary;
  let greedy = temperature(s) == 0.0;
  let heat = select(1.0 / max(temperature(s), 1e-30), 1.0, greedy);
  var best = -1e38;
  for (var v = local; v < p.vocabulary; v += 64u) { best = max(best, z(first + v) * heat); }
  let top = max64(local, best);
  let all = mass(local, first, heat, top, 0u, false);
  // The lowest order that stays. Barriers stand in what all threads do: what is off is searched for nothing.
  let k = u32(max(topK(s), 0));
  var least = 0u;
  for (var bit = 31; bit >= 0; bit--) {
    let candidate = least | (1u << u32(bit));
    if (count(local, first, heat, candidate) >= f32(k)) { least = candidate; }
  }
  least = select(0u, least, k > 0u && k < p.vocabulary);
  // The greatest order at and above which top-p's share lies: it stays, as many of it as the share needs.
  let limit = topP(s) * mass(local, first, heat, top, least, false);
  var low = 0u;
  for (var bit = 31; bit >= 0; bit--) {
    let candidate = low | (1u << u32(bit));
    if (mass(local, first, heat, top, max(candidate, least), false) >= limit) { low = candidate; }
  }
  low = min(low, key(top));
  let above = mass(local, first, heat, top, low, true);
  var equal = 0.0;
  for (var v = local; v < p.vocabulary; v += 64u) {
    let x = z(first + v) * heat;
    if (key(x) == low) { equal = max(equal, exp(x - top)); }
  }
  equal = max64(local, equal);
  var ties = p.vocabulary;
  if (topP(s) < 1.0) {
    least = low;
    ties = u32(max(1.0, ceil((limit - above) / max(equal, 1e-30))));
  }
  if (local != 0u) { return; }
  var kept = 0.0;
  var left = ties;
  let shares = minP(s);
  for (var v = 0u; v < p.vocabulary; v++) {
    let x = z(first + v) * heat;
    let order = key(x);
    if (order < least || (order == least && left == 0u)) { continue; }
    if (order == least) { left -= 1u; }
    let e = exp(x - top);
    if (e >= shares || x == top) { kept += e; }
  }
  var chosen = 0u;
  left = ties;
  var sum = 0.0;
  let wanted = uniforms(s) * kept;
  for (var v = 0u; v < p.vocabulary; v++) {
    let x = z(first + v) * heat;
    if (greedy) {
      if (x == top) { chosen = v; break; }
      continue;
    }
    let order = key(x);
    if (order < least || (order == least && left == 0u)) { continue; }
    if (order == least) { left -= 1u; }
    let e = exp(x - top);
    if (e < shares && x != top) { continue; }
    sum += e;
    if (e > 0.0) { chosen = v; }
    if (sum > wanted) { break; }
  }
  let own = z(first + chosen) * heat - top;
  set_id(s, i32(chosen));
  set_logProb(s, own - log(all));
  set_truncatedLogProb(s, own - log(kept));
}`,
}

/** The k likeliest ids of each row by k passes, lower ids first among equals, and the mass of the rest. A workgroup a row. */
export const topLogProbs: Kernel = {
  name: 'topLogProbs',
  args: { z: 'float', temperature: 'float', ids: 'intOut', logProbs: 'floatOut', tail: 'floatOut' },
  params: ['vocabulary', 'k'],
  workgroup: 64,
  code: /* wgsl */ `${reduce64}
var<workgroup> where_: array<u32, 64>;
fn kernel(unused: u32, local: u32, row: u32) {
  let first = row * p.vocabulary;
  let heat = 1.0 / temperature(0u);
  var best = -1e38;
  for (var v = local; v < p.vocabulary; v += 64u) { best = max(best, z(first + v) * heat); }
  let top = max64(local, best);
  var part = 0.0;
  for (var v = local; v < p.vocabulary; v += 64u) { part += exp(z(first + v) * heat - top); }
  let total = top + log(sum64(local, part));
  var last = 1e38;
  var last_id = 0u;
  for (var j = 0u; j < p.k; j++) {
    // The greatest that comes after the last one: less, or equal with a higher id.
    var mine = -1e38;
    var mine_id = p.vocabulary;
    for (var v = local; v < p.vocabulary; v += 64u) {
      let x = z(first + v) * heat;
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
      set_ids(row * p.k + j, i32(last_id));
      set_logProbs(row * p.k + j, last - total);
    }
  }
  var outer = -1e38;
  for (var v = local; v < p.vocabulary; v += 64u) {
    let x = z(first + v) * heat;
    if (x < last || (x == last && v > last_id)) { outer = max(outer, x); }
  }
  let most = max64(local, outer);
  var rest = 0.0;
  for (var v = local; v < p.vocabulary; v += 64u) {
    let x = z(first + v) * heat;
    if (x < last || (x == last && v > last_id)) { rest += exp(x - most); }
  }
  let left = sum64(local, rest);
  if (local == 0u) { set_tail(row, select(-1e30, most + log(left) - total, p.k < p.vocabulary)); }
}`,
}

/** Draws by inverse CDF for uniforms that ascend. A thread a row, in the order of ids. */
export const drawTokens: Kernel = {
  name: 'drawTokens',
  args: { z: 'float', temperature: 'float', uniforms: 'float', ids: 'intOut' },
  params: ['rows', 'vocabulary', 'draws'],
  workgroup: 64,
  code: /* wgsl */ `
fn kernel(row: u32, local: u32, group: u32) {
  if (row >= p.rows) { return; }
  let first = row * p.vocabulary;
  let heat = 1.0 / temperature(0u);
  var top = -1e38;
  for (var v = 0u; v < p.vocabulary; v++) { top = max(top, z(first + v) * heat); }
  var total = 0.0;
  for (var v = 0u; v < p.vocabulary; v++) { total += exp(z(first + v) * heat - top); }
  var sum = 0.0;
  var id = 0u;
  var v = 0u;
  for (var n = 0u; n < p.draws; n++) {
    let wanted = uniforms(row * p.draws + n) * total;
    while (v < p.vocabulary && sum <= wanted) {
      let e = exp(z(first + v) * heat - top);
      if (e > 0.0) { sum += e; id = v; }
      v++;
    }
    set_ids(row * p.draws + n, i32(id));
  }
}`,
}
