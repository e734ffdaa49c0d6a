// Counter-based random numbers: a value depends on its seed and counters alone, never on what was drawn before, so that
// batch order, threads and resuming change nothing. Bits and uniforms come from integer arithmetic and are the same on
// every platform; normals go through Math.log and Math.cos, whose last bit is the engine's.

/** Two lanes of 32 bits: 64 bits of state, so that streams of one seed do not collide in practice. */
const lanes = new Uint32Array(2)

/** A bijection of 32-bit integers with full avalanche (Chris Wellons' lowbias32). */
export function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad)
  x = Math.imul(x ^ (x >>> 15), 0x735a2d97)
  return x ^ (x >>> 15)
}

function start(seed: number): void {
  lanes[0] = mix(seed ^ 0x9e3779b9)
  lanes[1] = mix(Math.imul(seed, 0x85ebca6b) + 0xc2b2ae35)
}

function absorb(counter: number): void {
  lanes[0] = mix(lanes[0] ^ counter)
  lanes[1] = mix(lanes[1] + Math.imul(counter, 0x9e3779b1) + 0x27d4eb2f)
}

const finish = (): number => mix(lanes[0] + Math.imul(lanes[1], 0x85ebca77)) >>> 0

/** 32 random bits. Seed and counters count modulo 2^32. */
export function randomBits(seed: number, ...counters: number[]): number {
  start(seed)
  for (const counter of counters) absorb(counter)
  return finish()
}

/** Uniform in [0, 1): a multiple of 2^-24, so that it is the same number in f32. */
export function uniform(seed: number, ...counters: number[]): number {
  return (randomBits(seed, ...counters) >>> 8) / 0x1000000
}

/** Standard normal (Box-Muller of two uniforms of the same counters). */
export function normal(seed: number, ...counters: number[]): number {
  start(seed)
  for (const counter of counters) absorb(counter)
  return boxMuller()
}

/** Fills with uniforms of [low, high); value i has the counters (...counters, i). */
export function fillUniform(out: Float32Array, low: number, high: number, seed: number, ...counters: number[]): void {
  fill(out, seed, counters, () => low + (high - low) * ((finish() >>> 8) / 0x1000000))
}

/** Fills with normals of mean 0; value i has the counters (...counters, i). */
export function fillNormal(out: Float32Array, deviation: number, seed: number, ...counters: number[]): void {
  fill(out, seed, counters, () => deviation * boxMuller())
}

function fill(out: Float32Array, seed: number, counters: readonly number[], next: () => number): void {
  start(seed)
  for (const counter of counters) absorb(counter)
  const [a, b] = lanes
  for (let i = 0; i < out.length; i++) {
    lanes[0] = a
    lanes[1] = b
    absorb(i)
    out[i] = next()
  }
}

function boxMuller(): number {
  const u = (finish() + 0.5) / 0x100000000 // in (0, 1)
  absorb(0x5bd1e995)
  const v = finish() / 0x100000000
  return Math.sqrt(-2 * Math.log(u)) * Math.cos(2 * Math.PI * v)
}

/** A counter from a name, a tensor's for instance (FNV-1a over UTF-16 units). */
export function nameCounter(name: string): number {
  let h = 0x811c9dc5
  for (let i = 0; i < name.length; i++) h = Math.imul(h ^ name.charCodeAt(i), 0x01000193)
  return h >>> 0
}
