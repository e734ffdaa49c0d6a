import { LOG_ZERO } from '../sdk/log-zero.ts'
import { byGroup, each, expo, ln, reduce64 } from './kernel.ts'

// The vocabulary in slices: a slice's logits [rows, width] are in scratch, and what is known of all slices so far in `stats`.
// stats[r] = greatest z, Σ exp(z - greatest), Σ exp(z - greatest)·(z - greatest), then greatest and sum of those that are not picked.

/** Numbers of a row of `stats`. */
export const statsWidth = 5

const picked = /* wgsl */ `
fn picked(row: u32, v: u32) -> bool {
  for (var j = 0u; j < p.k; j++) { if (ids(row * p.k + j) == i32(v)) { return true; } }
  return false;
}
`

/** Adds a slice to the statistics, and notes the logits of the picked ids in it. A workgroup a row. */
export const vocabStats = byGroup(
  'vocabStats',
  { z: 'float', ids: 'int', temperature: 'float', logProbs: 'floatOut', stats: 'floatOut' },
  ['k', 'width', 'first'],
  `let inverse_t = 1.0 / temperature(0u);
  let at = group * p.width;
  var top = ${LOG_ZERO};
  var outer = ${LOG_ZERO};
  for (var v = local; v < p.width; v += 64u) {
    let x = z(at + v) * inverse_t;
    top = max(top, x);
    if (!picked(group, p.first + v)) { outer = max(outer, x); }
  }
  top = max64(local, top);
  outer = max64(local, outer);
  var mass = 0.0;
  var weighted = 0.0;
  var outside = 0.0;
  for (var v = local; v < p.width; v += 64u) {
    let x = z(at + v) * inverse_t;
    let e = expo(x - top);
    mass += e;
    weighted += e * (x - top);
    if (!picked(group, p.first + v)) { outside += expo(x - outer); }
  }
  mass = sum64(local, mass);
  weighted = sum64(local, weighted);
  outside = sum64(local, outside);
  for (var j = local; j < p.k; j += 64u) {
    let own = ids(group * p.k + j);
    if (own < 0) { set_logProbs(group * p.k + j, 0.0); }
    else if (u32(own) >= p.first && u32(own) < p.first + p.width) {
      set_logProbs(group * p.k + j, z(at + u32(own) - p.first) * inverse_t);
    }
  }
  if (local != 0u) { return; }
  let s = group * ${statsWidth}u;
  if (p.first == 0u) {
    set_stats(s, top); set_stats(s + 1u, mass); set_stats(s + 2u, weighted); set_stats(s + 3u, outer); set_stats(s + 4u, outside);
    return;
  }
  let t = max(stats(s), top);
  let old = expo(stats(s) - t);
  let new_ = expo(top - t);
  let o = max(stats(s + 3u), outer);
  let before = stats(s + 4u) * expo(stats(s + 3u) - o) + outside * expo(outer - o);
  let shifted = old * (stats(s + 2u) + stats(s + 1u) * (stats(s) - t));
  set_stats(s + 2u, shifted + new_ * (weighted + mass * (top - t)));
  set_stats(s + 1u, stats(s + 1u) * old + mass * new_);
  set_stats(s, t);
  set_stats(s + 3u, o);
  set_stats(s + 4u, before);`,
  `${reduce64}${expo}${picked}`,
)

/** Log-sum-exp, entropy, the picked log-probabilities and the log of the mass outside. A thread a row. */
export const vocabCombine = each(
  'vocabCombine',
  { stats: 'float', ids: 'int', logProbs: 'floatOut', lse: 'floatOut', entropy: 'floatOut', tail: 'floatOut' },
  ['k'],
  `let s = i * ${statsWidth}u;
  let total = stats(s) + ln(stats(s + 1u));
  set_lse(i, total);
  set_entropy(i, ln(stats(s + 1u)) - stats(s + 2u) / stats(s + 1u));
  var own = 0.0;
  for (var j = 0u; j < p.k; j++) {
    let at = i * p.k + j;
    if (ids(at) < 0) { continue; }
    let logProb = logProbs(at) - total;
    set_logProbs(at, logProb);
    own += expo(logProb);
  }
  let outer = stats(s + 3u);
  var rest = ${LOG_ZERO};
  // What is left of 1 where little is picked, else the sum of the others.
  if (outer > ${LOG_ZERO / 10}) {
    if (own < 0.5) { rest = ln_rest(own); } else { rest = outer - stats(s) + ln(stats(s + 4u) / stats(s + 1u)); }
  }
  set_tail(i, rest);`,
  `${ln}${expo}`,
)

/** A slice's logits become their gradient over T, in place. A thread an element. */
export const vocabGradient = each(
  'vocabGradient',
  {
    z: 'floatOut',
    ids: 'int',
    dLogProbs: 'float',
    dLse: 'float',
    dEntropy: 'float',
    dTail: 'float',
    lse: 'float',
    entropy: 'float',
    tail: 'float',
    temperature: 'float',
  },
  ['k', 'width', 'first'],
  `let row = i / p.width;
  let id = i32(p.first + i % p.width);
  let inverse_t = 1.0 / temperature(0u);
  let logP = z(i) * inverse_t - lse(row);
  var all = 0.0;
  var own = 0.0;
  var is_own = false;
  for (var j = 0u; j < p.k; j++) {
    let pick = ids(row * p.k + j);
    if (pick < 0) { continue; }
    let d = dLogProbs(row * p.k + j);
    all += d;
    if (pick == id) { own += d; is_own = true; }
  }
  let rest = select(0.0, dTail(row), tail(row) > ${LOG_ZERO / 10});
  var grad = expo(logP) * (dLse(row) - all - dEntropy(row) * (logP + entropy(row)) - rest) + own;
  if (!is_own && rest != 0.0) { grad += rest * expo(logP - tail(row)); }
  set_z(i, grad * inverse_t);`,
  expo,
)
