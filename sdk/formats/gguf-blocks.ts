import { storedTypes } from '../dtype.ts'
import { dequantizeQ4, dequantizeQ4A, dequantizeQ8 } from '../quant/blocks.ts'
import { readHalf } from '../quant/float16.ts'

// GGUF's block types to f32, with the rounding of ggml's reference: every product and sum is rounded to f32.

/** Bytes and elements of one block. */
export const ggufBlocks = {
  Q4_0: storedTypes.q4,
  Q4_1: storedTypes.q4a,
  Q5_0: { bytes: 22, elements: 32 },
  Q5_1: { bytes: 24, elements: 32 },
  Q8_0: storedTypes.q8,
  Q2_K: { bytes: 84, elements: 256 },
  Q3_K: { bytes: 110, elements: 256 },
  Q4_K: { bytes: 144, elements: 256 },
  Q5_K: { bytes: 176, elements: 256 },
  Q6_K: { bytes: 210, elements: 256 },
  IQ4_NL: { bytes: 18, elements: 32 },
  IQ4_XS: { bytes: 136, elements: 256 },
  TQ1_0: { bytes: 54, elements: 256 },
  TQ2_0: { bytes: 66, elements: 256 },
  MXFP4: { bytes: 17, elements: 32 },
} as const

export type GgufBlock = keyof typeof ggufBlocks

/** One block at byte `at` of `b` to elements `to`... of `out`. */
type Decode = (b: Uint8Array, at: number, out: Float32Array, to: number) => void

/** Whole blocks to f32. */
export function dequantizeBlocks(type: GgufBlock, bytes: Uint8Array): Float32Array {
  if (type === 'Q8_0') return dequantizeQ8(bytes)
  if (type === 'Q4_1') return dequantizeQ4A(bytes)
  if (type === 'Q4_0') return dequantizeQ4(bytes)
  const block = ggufBlocks[type]
  const count = bytes.length / block.bytes
  const out = new Float32Array(count * block.elements)
  const decode = decoders[type]
  for (let i = 0; i < count; i++) decode(bytes, i * block.bytes, out, i * block.elements)
  return out
}

const { fround } = Math
const int8 = (x: number): number => (x << 24) >> 24

/** What the nibbles of IQ4_NL and IQ4_XS stand for. */
export const nonLinear = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
/** Twice the values of a 4-bit float (2 exponent bits, 1 fraction bit). */
export const fp4 = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]

/** Elements 0..15 in the low nibbles of 16 bytes, 16..31 in the high ones, through a table. */
function nibblesByTable(
  b: Uint8Array,
  at: number,
  out: Float32Array,
  to: number,
  scale: number,
  table: number[],
): void {
  for (let i = 0; i < 16; i++) {
    out[to + i] = scale * table[b[at + i] & 15]
    out[to + 16 + i] = scale * table[b[at + i] >>> 4]
  }
}

/** The fifth bits of 32 elements. */
const highBits = (b: Uint8Array, at: number): number => b[at] | (b[at + 1] << 8) | (b[at + 2] << 16) | (b[at + 3] << 24)

const q50: Decode = (b, at, out, to) => {
  const d = readHalf(b, at)
  const high = highBits(b, at + 2)
  for (let i = 0; i < 16; i++) {
    const pair = b[at + 6 + i]
    out[to + i] = d * (((pair & 15) | (((high >>> i) & 1) << 4)) - 16)
    out[to + 16 + i] = d * (((pair >>> 4) | (((high >>> (i + 16)) & 1) << 4)) - 16)
  }
}

const q51: Decode = (b, at, out, to) => {
  const d = readHalf(b, at)
  const m = readHalf(b, at + 2)
  const high = highBits(b, at + 4)
  for (let i = 0; i < 16; i++) {
    const pair = b[at + 8 + i]
    out[to + i] = fround(d * ((pair & 15) | (((high >>> i) & 1) << 4))) + m
    out[to + 16 + i] = fround(d * ((pair >>> 4) | (((high >>> (i + 16)) & 1) << 4))) + m
  }
}

// K-quants: 256 elements in groups of 16 or 32, each with a small scale (and minimum) of its own.

const q2k: Decode = (b, at, out, to) => {
  const d = readHalf(b, at + 80)
  const minimum = readHalf(b, at + 82)
  for (let i = 0; i < 256; i++) {
    const group = b[at + (i >>> 4)]
    const q = (b[at + 16 + ((i >>> 7) << 5) + (i & 31)] >>> (((i >>> 5) & 3) * 2)) & 3
    out[to + i] = fround(fround(d * (group & 15)) * q) - fround(minimum * (group >>> 4))
  }
}

const q3k: Decode = (b, at, out, to) => {
  const d = readHalf(b, at + 108)
  for (let group = 0; group < 16; group++) {
    const low = (b[at + 96 + (group & 7)] >>> (group < 8 ? 0 : 4)) & 15
    const high = (b[at + 104 + (group & 3)] >>> ((group >>> 2) * 2)) & 3
    const scale = fround(d * ((low | (high << 4)) - 32))
    for (let i = group * 16; i < group * 16 + 16; i++) {
      const low2 = (b[at + 32 + ((i >>> 7) << 5) + (i & 31)] >>> (((i >>> 5) & 3) * 2)) & 3
      const bit = (b[at + (i & 31)] >>> (i >>> 5)) & 1
      out[to + i] = scale * (low2 - (bit ? 0 : 4))
    }
  }
}

/** 6-bit scale and minimum of group 0..7 out of 12 bytes. */
export function scaleAndMinimum(b: Uint8Array, at: number, group: number): [scale: number, minimum: number] {
  if (group < 4) return [b[at + group] & 63, b[at + 4 + group] & 63]
  const pair = b[at + 4 + group]
  return [(pair & 15) | ((b[at + group - 4] >>> 6) << 4), (pair >>> 4) | ((b[at + group] >>> 6) << 4)]
}

const q4k: Decode = (b, at, out, to) => {
  const d = readHalf(b, at)
  const dMinimum = readHalf(b, at + 2)
  for (let group = 0; group < 8; group++) {
    const [s, m] = scaleAndMinimum(b, at + 4, group)
    const scale = fround(d * s)
    const minimum = fround(dMinimum * m)
    for (let i = 0; i < 32; i++) {
      const q = (b[at + 16 + (group >>> 1) * 32 + i] >>> ((group & 1) * 4)) & 15
      out[to + group * 32 + i] = fround(scale * q) - minimum
    }
  }
}

const q5k: Decode = (b, at, out, to) => {
  const d = readHalf(b, at)
  const dMinimum = readHalf(b, at + 2)
  for (let group = 0; group < 8; group++) {
    const [s, m] = scaleAndMinimum(b, at + 4, group)
    const scale = fround(d * s)
    const minimum = fround(dMinimum * m)
    for (let i = 0; i < 32; i++) {
      const low = (b[at + 48 + (group >>> 1) * 32 + i] >>> ((group & 1) * 4)) & 15
      const high = (b[at + 16 + i] >>> group) & 1
      out[to + group * 32 + i] = fround(scale * (low | (high << 4))) - minimum
    }
  }
}

const q6k: Decode = (b, at, out, to) => {
  const d = readHalf(b, at + 208)
  // Halves of 128 in quarters of 32; a scale holds for 16.
  for (let part = 0; part < 2; part++)
    for (let from = 0; from < 32; from += 16) {
      const scaleAt = at + 192 + part * 8 + (from >>> 4)
      const s0 = fround(d * int8(b[scaleAt]))
      const s1 = fround(d * int8(b[scaleAt + 2]))
      const s2 = fround(d * int8(b[scaleAt + 4]))
      const s3 = fround(d * int8(b[scaleAt + 6]))
      for (let i = from; i < from + 16; i++) {
        const low = b[at + part * 64 + i]
        const next = b[at + part * 64 + 32 + i]
        const high = b[at + 128 + part * 32 + i]
        const first = to + part * 128 + i
        out[first] = s0 * (((low & 15) | ((high & 3) << 4)) - 32)
        out[first + 32] = s1 * (((next & 15) | ((high & 12) << 2)) - 32)
        out[first + 64] = s2 * (((low >>> 4) | (high & 48)) - 32)
        out[first + 96] = s3 * (((next >>> 4) | ((high & 192) >>> 2)) - 32)
      }
    }
}

const iq4nl: Decode = (b, at, out, to) => nibblesByTable(b, at + 2, out, to, readHalf(b, at), nonLinear)

/** Of group 0..7 of an IQ4_XS block. */
export function groupScale(b: Uint8Array, at: number, group: number): number {
  const low = (b[at + 4 + (group >>> 1)] >>> ((group & 1) * 4)) & 15
  const high = (b[at + 2 + (group >>> 2)] >>> ((group & 3) * 2)) & 3
  return fround(readHalf(b, at) * ((low | (high << 4)) - 32))
}

const iq4xs: Decode = (b, at, out, to) => {
  for (let group = 0; group < 8; group++)
    nibblesByTable(b, at + 8 + group * 16, out, to + group * 32, groupScale(b, at, group), nonLinear)
}

/** Five base-3 digits in a byte: digit n is the top of 3^n · byte. */
const tq10: Decode = (b, at, out, to) => {
  const d = readHalf(b, at + 52)
  const digits = (from: number, bytes: number, count: number, first: number) => {
    for (let n = 0, power = 1; n < count; n++, power *= 3)
      for (let i = 0; i < bytes; i++) {
        const digit = (((b[at + from + i] * power) & 255) * 3) >>> 8
        out[to + first + n * bytes + i] = d * (digit - 1)
      }
  }
  digits(0, 32, 5, 0)
  digits(32, 16, 5, 160)
  digits(48, 4, 4, 240)
}

const tq20: Decode = (b, at, out, to) => {
  const d = readHalf(b, at + 64)
  for (let i = 0; i < 256; i++)
    out[to + i] = d * (((b[at + ((i >>> 7) << 5) + (i & 31)] >>> (((i >>> 5) & 3) * 2)) & 3) - 1)
}

/** The scale is a power of two: 2^(byte - 127), halved since the table holds doubles. */
const mxfp4: Decode = (b, at, out, to) => nibblesByTable(b, at + 1, out, to, 2 ** (b[at] - 128), fp4)

const decoders: Record<Exclude<GgufBlock, 'Q8_0' | 'Q4_1' | 'Q4_0'>, Decode> = {
  Q5_0: q50,
  Q5_1: q51,
  Q2_K: q2k,
  Q3_K: q3k,
  Q4_K: q4k,
  Q5_K: q5k,
  Q6_K: q6k,
  IQ4_NL: iq4nl,
  IQ4_XS: iq4xs,
  TQ1_0: tq10,
  TQ2_0: tq20,
  MXFP4: mxfp4,
}
