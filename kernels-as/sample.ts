// One id per row of logits [s, v], exact over the whole vocabulary. Threads share the rows; each uses its own scratch:
// logits after edits f32[v], weights exp((l - top) / T) f32[v], and the bins of a radix selection f64[2048].
//
// Truncation is decided by a threshold on the logits (ordered as u32 keys) and, for top-p, how many ids at the
// threshold stay: top-k and top-p are both the first key, from the greatest down, at which a running weight (1 each,
// or the mass) reaches its target. Three passes of 11, 11 and 10 bits find it without sorting.
// Measured (1 thread, a row of 151,936): 0.3 ms with nothing cut, 1.2 ms top-k, 1.5 ms top-p, 1.7 ms all.
import { lines, shareEnd, shareStart } from './common'
import { exp1, weigh } from './math'

/** Bytes of the bins of a selection: f64[2048], then a byte each. */
const BINS: usize = 2048 * 8 + 2048

/** Bytes of scratch that one thread needs. */
export function sampleScratch(v: i32): usize {
  return lines((<usize>v) << 3) + BINS
}

/** Bits of a f32 in the order of its value. */
// @ts-ignore: decorator
@inline
function keyOf(value: f32): u32 {
  // -0 equals 0
  const bits = reinterpret<u32>(value + 0)
  return bits ^ (<u32>(<i32>bits >> 31) | 0x80000000)
}

/** Weight of the keys above the key that `selectKey` found. */
let above: f64 = 0

/** The greatest key (of those >= least) at which the weight of all keys >= it reaches `target`. masses 0: 1 each. */
function selectKey(l: usize, masses: usize, v: i32, least: u32, target: f64, bins: usize): u32 {
  let prefix: u32 = 0
  let known: u32 = 0
  above = 0
  for (let pass = 0; pass < 3; pass++) {
    const shift: u32 = pass == 0 ? 21 : pass == 1 ? 10 : 0
    const mask: u32 = pass == 2 ? 1023 : 2047
    memory.fill(bins, 0, 16384)
    // a bin with elements of no mass still counts as taken
    memory.fill(bins + 16384, 0, 2048)
    for (let i: usize = 0; i < <usize>v; i++) {
      const key = keyOf(load<f32>(l + (i << 2)))
      if (key < least || (key & known) != prefix) continue
      const bin = <usize>((key >> shift) & mask)
      store<f64>(bins + (bin << 3), load<f64>(bins + (bin << 3)) + (masses ? <f64>load<f32>(masses + (i << 2)) : 1))
      store<u8>(bins + 16384 + bin, 1)
    }
    let found: u32 = 0
    let before = above
    let running = above
    for (let b = <i32>mask; b >= 0; b--) {
      if (!load<u8>(bins + 16384 + b)) continue
      before = running
      found = b
      running += load<f64>(bins + (<usize>b << 3))
      if (running >= target) break
    }
    above = before
    prefix |= found << shift
    known |= mask << shift
  }
  return prefix
}

/** Penalties of a row for tokens that were seen: counts[v] is twice the times that v was drawn, and 1 if it is in the prompt. */
function penalize(l: usize, v: i32, penalties: usize, counts: usize): void {
  const repetition = load<f32>(penalties)
  const frequency = load<f32>(penalties, 4)
  const presence = load<f32>(penalties, 8)
  for (let i: usize = 0; i < <usize>v << 2; i += 4) {
    const count = load<i32>(counts + i)
    if (count == 0) continue
    let value = load<f32>(l + i)
    value = value > 0 ? value / repetition : value * repetition
    if (count > 1) value -= frequency * <f32>(count >> 1) + presence
    store<f32>(l + i, value)
  }
}

/**
 * temperature, topP, minP, uniform f32[s], topK i32[s]; edits of e entries; penalties f32[s, 3] and counts i32[.., v], or 0: a draw
 * adds 2 to its count; ids i32[s], log-probabilities f32[s].
 */
export function sample(
  logits: usize, temperature: usize, topK: usize, topP: usize, minP: usize, uniform: usize,
  editRow: usize, editId: usize, editBias: usize, e: i32, penalties: usize, counts: usize,
  ids: usize, logProb: usize, truncatedLogProb: usize, s: i32, v: i32, scratch: usize, scratchBytes: i32,
  thread: i32, threads: i32,
): void {
  const l = scratch + <usize>thread * scratchBytes
  const p = l + (<usize>v << 2)
  const bins = l + <usize>scratchBytes - BINS
  const end = shareEnd(s, 1, thread, threads)
  for (let row = shareStart(s, 1, thread, threads); row < end; row++) {
    const own = <usize>row << 2
    memory.copy(l, logits + ((<usize>row * v) << 2), <usize>v << 2)
    if (counts) penalize(l, v, penalties + <usize>row * 12, counts + ((<usize>row * v) << 2))
    for (let i: usize = 0; i < <usize>e; i++) {
      if (load<i32>(editRow + (i << 2)) != row) continue
      const at = l + (<usize>load<i32>(editId + (i << 2)) << 2)
      store<f32>(at, load<f32>(at) + load<f32>(editBias + (i << 2)))
    }
    let top = load<f32>(l)
    let best = 0
    for (let i = 1; i < v; i++) {
      const value = load<f32>(l + (<usize>i << 2))
      if (value > top) {
        top = value
        best = i
      }
    }
    const t = <f64>load<f32>(temperature + own)
    const greedy = t == 0
    const inverse = greedy ? 1 : 1 / t
    const mass = weigh(l, p, v, top, <f32>inverse)

    const k = load<i32>(topK + own)
    const topMass = <f64>load<f32>(topP + own)
    const leastShare = <f64>load<f32>(minP + own)
    let kept = mass
    if ((k > 0 && k < v) || topMass < 1 || leastShare > 0) {
      let least: u32 = 0
      // ids exactly at `least` that stay, lowest first
      let ties = i32.MAX_VALUE
      if (k > 0 && k < v) least = selectKey(l, 0, v, 0, k, bins)
      if (topMass < 1) {
        let total: f64 = 0
        for (let i: usize = 0; i < <usize>v; i++)
          if (keyOf(load<f32>(l + (i << 2))) >= least) total += <f64>load<f32>(p + (i << 2))
        const target = topMass * total
        least = selectKey(l, p, v, least, target, bins)
        // id number j (from 0) at the threshold stays while what comes before it is below the target
        const each = <f64>weightOf(least, top, <f32>inverse)
        const fit = each > 0 ? Math.ceil((target - above) / each) : 0
        ties = fit < 1 ? (above > 0 ? 0 : 1) : fit > 1e9 ? i32.MAX_VALUE : <i32>fit
      }
      const lowest = leastShare > 0 ? <f64>top + Math.log(leastShare) / inverse : -Infinity
      kept = 0
      for (let i = 0; i < v; i++) {
        const at = <usize>i << 2
        const value = load<f32>(l + at)
        const key = keyOf(value)
        if (key > least || (key == least && ties-- > 0)) {
          if (<f64>value >= lowest || value == top) {
            kept += <f64>load<f32>(p + at)
            continue
          }
        }
        store<f32>(p + at, 0)
      }
    }

    let id = best
    if (!greedy) {
      const target = <f64>load<f32>(uniform + own) * kept
      let cumulated: f64 = 0
      for (let i = 0; i < v; i++) {
        const weight = <f64>load<f32>(p + (<usize>i << 2))
        if (weight == 0) continue
        cumulated += weight
        id = i
        if (cumulated > target) break
      }
    }
    const z = (<f64>load<f32>(l + (<usize>id << 2)) - <f64>top) * inverse
    store<i32>(ids + own, id)
    if (counts) {
      const at = counts + ((<usize>row * v + <usize>id) << 2)
      store<i32>(at, load<i32>(at) + 2)
    }
    store<f32>(logProb + own, <f32>(z - Math.log(mass)))
    store<f32>(truncatedLogProb + own, <f32>(z - Math.log(kept)))
  }
}

// The weight of the ids at one key, as `weigh` has it.
// @ts-ignore: decorator
@inline
function weightOf(key: u32, top: f32, inverse: f32): f32 {
  const value = reinterpret<f32>(key ^ (key >> 31 ? 0x80000000 : 0xffffffff))
  return exp1((value - top) * inverse)
}
