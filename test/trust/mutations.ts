import { randomBits } from '../../sdk/random.ts'

// Damage to files, from a seed: bytes that change, go, come twice or from elsewhere, numbers that lie, JSON of another shape.

export type Random = (n: number) => number

/** Whole numbers below n; the same for the same seed. */
export function randomOf(seed: number, index: number): Random {
  let count = 0
  return (n) => Math.floor((randomBits(seed, index, count++) * n) / 2 ** 32)
}

const lies = [0, 1, 7, 31, 255, 65_535, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 53, 2 ** 63, 2 ** 64 - 1].map(BigInt)
const notFinite = [0x7fc00000, 0x7f800000, 0xff800000]

/** One to three changes, nine of ten in the first `header` bytes. */
export function damageBytes(good: Uint8Array, header: number, random: Random): Uint8Array {
  let bytes = new Uint8Array(good)
  for (let n = 1 + random(3); n > 0 && bytes.length > 0; n--) {
    const at = random(Math.min(bytes.length, random(10) ? header : bytes.length))
    const view = new DataView(bytes.buffer)
    const kind = random(10)
    if (kind === 0) bytes[at] ^= 1 << random(8)
    else if (kind === 1) bytes.fill(random(256), at, at + 1 + random(16))
    else if (kind === 2 && at + 8 <= bytes.length) view.setBigUint64(at, lies[random(lies.length)], true)
    else if (kind === 3 && at + 4 <= bytes.length)
      view.setUint32(at, Number(lies[random(lies.length)] & 0xffffffffn), true)
    else if (kind === 4) bytes = bytes.slice(0, random(10) ? Math.max(0, bytes.length - random(64)) : at)
    else if (kind === 5) bytes[at] = '0123456789-.eE{}[]",:'.charCodeAt(random(21))
    else if (kind === 6) bytes = new Uint8Array(Buffer.concat([bytes, bytes.subarray(at, at + random(200))]))
    else if (kind === 7 && at + 4 <= bytes.length) view.setUint32(at, notFinite[random(3)], true)
    else if (kind === 8) bytes.copyWithin(at, random(bytes.length), random(bytes.length))
    else {
      const length = random(40)
      bytes = new Uint8Array(Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)]))
    }
  }
  return bytes
}

/** Values that a key may have been given instead. */
const values: readonly ((random: Random) => unknown)[] = [
  () => null,
  () => true,
  () => -1,
  () => 0,
  () => 0.5,
  () => 1e308,
  () => -1e308,
  () => 2 ** 31,
  () => 2 ** 53,
  () => '',
  () => 'x'.repeat(10_000),
  () => ' '.repeat(10_000),
  () => '\u0000\ud800',
  () => [],
  () => ({}),
  () => [null],
  () => ({ __proto__x: 1, constructor: 2 }),
  (random) => random(100_000),
  (random) => '(a+)+$'.repeat(1 + random(3)),
  () => ({ Regex: '(?:.|\\s)*$' }),
  () => '{% for i in range(1000000000) %}x{% endfor %}',
  () => '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}',
]

/** Another structure: a key goes, gets another value or another name, comes twice, or nests deeply. */
export function damageJson(good: unknown, random: Random): string {
  const json = structuredClone(good)
  for (let n = 1 + random(2); n > 0; n--) {
    const places: [holder: Record<string, unknown>, key: string][] = []
    collect(json, places, 0)
    if (places.length === 0) break
    // Keys near the top say most.
    const [holder, key] = places[random(4) ? random(Math.min(places.length, 60)) : random(places.length)]
    const kind = random(6)
    if (kind === 0) delete holder[key]
    else if (kind === 1) holder[`${key}${random(2) ? 'x' : ''}`] = structuredClone(places[random(places.length)][0])
    else if (kind === 2 && typeof holder[key] === 'number')
      holder[key] = Number(lies[random(lies.length)]) * (random(2) ? 1 : -1)
    else holder[key] = values[random(values.length)](random)
  }
  const text = JSON.stringify(json) ?? 'null'
  const extra = random(40)
  if (extra === 0) return `${'['.repeat(20_000)}${']'.repeat(20_000)}`
  if (extra === 1) return `{"__proto__": {"x": 1}, ${text.slice(1)}`
  if (extra === 2) return text.replace(/:(\[|\{)/, `:${'{"a":'.repeat(5000)}1${'}'.repeat(5000)},"b":$1`)
  return text
}

function collect(value: unknown, places: [Record<string, unknown>, string][], depth: number): void {
  if (typeof value !== 'object' || value === null || depth > 6) return
  const holder = value as Record<string, unknown>
  const keys = Object.keys(holder)
  for (const key of keys) places.push([holder, key])
  // Of long lists (a vocabulary) a few members.
  for (const key of keys.slice(0, 20)) collect(holder[key], places, depth + 1)
}
