import { storedTypes } from '../dtype.ts'
import { halfBits, halfToNumber, numberToHalf, writeHalf } from '../quant/float16.ts'
import { fp4, type GgufBlock, ggufBlocks, groupScale, nonLinear, scaleAndMinimum } from './gguf-blocks.ts'

// Blocks of GGUF's types rewritten as blocks of q8 and q4a that hold the same integers: nothing is rounded but scales, to f16.

export interface Transcoding {
  readonly dtype: 'q8' | 'q4a'
  /** Whether every number stays what it is. */
  readonly isExact: boolean
  /** Of whole blocks. */
  transcode(bytes: Uint8Array): Uint8Array
}

const { fround } = Math
const q8Halves = storedTypes.q8.bytes / 2
const q4aHalves = storedTypes.q4a.bytes / 2

/** Two bytes a number; a view needs an even start. */
const halvesOf = (bytes: Uint8Array): Uint16Array => {
  const { buffer, byteOffset, length } = bytes.byteOffset % 2 === 0 ? bytes : new Uint8Array(bytes)
  return new Uint16Array(buffer, byteOffset, length / 2)
}
const bytesIn = (halves: Uint16Array): Uint8Array => new Uint8Array(halves.buffer)

/** What two fifth bits, the first the low one, make of two nibbles' high halves: q - 16 as int8. */
const signs = Uint16Array.of(0xf0f0, 0xf000, 0x00f0, 0)

/** f16 scale, 32 fifth bits, 32 nibbles. */
function q50(bytes: Uint8Array): Uint8Array {
  const from = halvesOf(bytes)
  const size = ggufBlocks.Q5_0.bytes / 2
  const to = new Uint16Array((from.length / size) * q8Halves)
  for (let at = 0, out = 0; at < from.length; at += size, out += q8Halves) {
    to[out] = from[at]
    const low = from[at + 1]
    const high = from[at + 2]
    for (let i = 0; i < 8; i++) {
      const pairs = from[at + 3 + i]
      to[out + 1 + i] = (pairs & 0x0f0f) | signs[(low >>> (2 * i)) & 3]
      to[out + 9 + i] = ((pairs >>> 4) & 0x0f0f) | signs[(high >>> (2 * i)) & 3]
    }
  }
  return bytesIn(to)
}

/** The 16 bytes at `at`, nibbles that a table turns to int8, as the numbers of the q8 block at `to`. */
function byTable(b: Uint8Array, at: number, table: Int8Array, out: Uint8Array, to: number): void {
  for (let i = 0; i < 16; i++) {
    const pair = b[at + i]
    out[to + 2 + i] = table[pair & 15]
    out[to + 18 + i] = table[pair >>> 4]
  }
}

const nonLinear8 = Int8Array.from(nonLinear)
const fp48 = Int8Array.from(fp4)

/** Blocks of `blockBytes` that begin with a scale and end with 32 nibbles. */
function nibblesToQ8(b: Uint8Array, blockBytes: number, table: Int8Array, scale: (at: number) => number): Uint8Array {
  const out = new Uint8Array((b.length / blockBytes) * storedTypes.q8.bytes)
  for (let at = 0, to = 0; at < b.length; at += blockBytes, to += storedTypes.q8.bytes) {
    writeHalf(out, to, scale(at))
    byTable(b, at + blockBytes - 16, table, out, to)
  }
  return out
}

/** 256 elements in groups of 32, each a q8 block whose scale is rounded. */
function iq4xs(b: Uint8Array): Uint8Array {
  const { bytes, elements } = ggufBlocks.IQ4_XS
  const groups = elements / storedTypes.q8.elements
  const out = new Uint8Array((b.length / bytes) * groups * storedTypes.q8.bytes)
  for (let at = 0, to = 0; at < b.length; at += bytes)
    for (let group = 0; group < groups; group++, to += storedTypes.q8.bytes) {
      writeHalf(out, to, numberToHalf(groupScale(b, at, group)))
      byTable(b, at + 8 + group * 16, nonLinear8, out, to)
    }
  return out
}

/** 256 elements in groups of 32, each a q4a block whose scale and minimum are rounded. Two groups lie in 32 bytes. */
function q4k(b: Uint8Array): Uint8Array {
  const from = halvesOf(b)
  const { bytes, elements } = ggufBlocks.Q4_K
  const groups = elements / storedTypes.q4a.elements
  const to = new Uint16Array((b.length / bytes) * groups * q4aHalves)
  for (let block = 0, out = 0; block < b.length; block += bytes) {
    const d = halfToNumber(from[block / 2])
    const dMinimum = halfToNumber(from[block / 2 + 1])
    for (let group = 0; group < groups; group++, out += q4aHalves) {
      const [scale, minimum] = scaleAndMinimum(b, block + 4, group)
      to[out] = numberToHalf(fround(d * scale))
      to[out + 1] = numberToHalf(-fround(dMinimum * minimum))
      const at = block / 2 + 8 + (group >>> 1) * 16
      if (group & 1)
        for (let i = 0; i < 8; i++) to[out + 2 + i] = ((from[at + i] >>> 4) & 0x0f0f) | (from[at + 8 + i] & 0xf0f0)
      else for (let i = 0; i < 8; i++) to[out + 2 + i] = (from[at + i] & 0x0f0f) | ((from[at + 8 + i] & 0x0f0f) << 4)
    }
  }
  return bytesIn(to)
}

export const transcodings: Readonly<Partial<Record<GgufBlock, Transcoding>>> = {
  Q5_0: { dtype: 'q8', isExact: true, transcode: q50 },
  Q4_K: { dtype: 'q4a', isExact: false, transcode: q4k },
  IQ4_NL: {
    dtype: 'q8',
    isExact: true,
    transcode: (b) => nibblesToQ8(b, ggufBlocks.IQ4_NL.bytes, nonLinear8, (at) => halfBits(b, at)),
  },
  IQ4_XS: { dtype: 'q8', isExact: false, transcode: iq4xs },
  // Exact where the scale, a power of two, is an f16.
  MXFP4: {
    dtype: 'q8',
    isExact: false,
    transcode: (b) => nibblesToQ8(b, ggufBlocks.MXFP4.bytes, fp48, (at) => numberToHalf(2 ** (b[at] - 128))),
  },
}
