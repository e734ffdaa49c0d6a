import { BLOCK } from '../blocks.ts'
import { storedTypes } from '../dtype.ts'
import { quantizeQ8 } from '../quant/blocks.ts'
import { turn } from '../turn.ts'
import { asHalves, blockWords, fail, joined, partOf, wordsOf, writeBlock } from './joined.ts'
import { layoutOf, readFloats, type StoredTensor } from './stored.ts'

// What AWQ and GPTQ (awq.ts, gptq.ts) share: `X.qweight`, `X.qzeros` and `X.scales` in place of `X.weight` [O, I], and
// w = (q - zero) * scale with a zero and a scale for each output and group of inputs. That is q4a with the minimum -zero * scale, rounded
// to f16.
//
// Words lie along the other axis: a row of W is a column here. So a tensor becomes blocks as a whole, from one band of inputs after the
// other. A range of it is cut from those blocks, which stay until its end is read or another tensor is: at most one tensor's.

/**
 * Four bits of each output in rows of words [rows, outputs / 8].
 *
 * @param places of eight outputs in their word, from the lowest bits on
 */
export const nibbles = (words: Uint32Array, places: readonly number[]): Uint8Array =>
  Uint8Array.from({ length: 8 * words.length }, (_, i) => (words[i >>> 3] >>> (4 * places[i & 7])) & 15)

/** The parts of a matrix; G groups of inputs. */
export interface Matrix {
  readonly outputs: number
  readonly inputs: number
  readonly groupSize: number
  readonly qweight: StoredTensor
  readonly qzeros: StoredTensor
  readonly scales: StoredTensor
  /** Codes of an output: word `word` of them, eight inputs in their order, of words of qweight from an input on. */
  readonly codes: (words: Uint32Array, output: number, word: number) => number
  /** [G, O] from words of qzeros. */
  readonly zeros: (words: Uint32Array) => Uint8Array
  /** The group of each input where they are out of order. */
  readonly groups: Uint32Array | null
}

export type Tensors = ReadonlyMap<string, StoredTensor>

/** A folder's tensors with each matrix as one. Throws FormatError for parts that do not fit. */
export async function withMatrices(
  tensors: Tensors,
  matrixOf: (module: string, qweight: StoredTensor) => Promise<Matrix>,
): Promise<Tensors> {
  let held: { matrix: Matrix; blocks: Uint8Array } | null = null
  const cut = async (matrix: Matrix, from: number, to: number) => {
    if (held?.matrix !== matrix) {
      held = null
      held = { matrix, blocks: await blocksOf(matrix) }
    }
    const { blocks } = held
    if (to === blocks.length) held = null
    return blocks.slice(from, to)
  }
  const matrixTensor = (name: string, matrix: Matrix): StoredTensor => {
    const { outputs, inputs, qweight } = matrix
    const dtype = dtypeOf(matrix)
    const { bytes } = layoutOf(dtype)
    return joined({ name, dtype, shape: [outputs, inputs], file: qweight.file }, (first, count) =>
      count * BLOCK === outputs * inputs ? blocksOf(matrix) : cut(matrix, first * bytes, (first + count) * bytes),
    )
  }
  const found = [...tensors].map(async ([name, tensor]): Promise<[string, StoredTensor][]> => {
    const [, module, part] = /^(.*)\.(qweight|qzeros|scales|g_idx)$/.exec(name) ?? []
    if (part === undefined) return [[name, tensor]]
    if (!tensors.has(`${module}.qweight`)) fail(tensor, `there is no ${module}.qweight for it`)
    if (part !== 'qweight') return []
    const weight = `${module}.weight`
    if (tensors.has(weight)) fail(tensor, `there is ${weight} also`)
    return [[weight, matrixTensor(weight, await matrixOf(module, tensor))]]
  })
  return new Map((await Promise.all(found)).flat())
}

/** The parts that both formats have, of qweight's sizes. */
export function partsOf(
  module: string,
  qweight: StoredTensor,
  sizes: { inputs: number; outputs: number; groupSize: number },
  tensors: Tensors,
) {
  const { inputs, outputs, groupSize } = sizes
  const { shape, dtype } = qweight
  if (dtype !== 'I32') fail(qweight, `${dtype} is not supported, I32 is`)
  if (shape.length !== 2 || inputs % BLOCK !== 0 || outputs % 8 !== 0)
    fail(qweight, `[${shape.join(', ')}] is not of a matrix with inputs of a multiple of ${BLOCK} and outputs of 8`)
  const groups = Math.ceil(inputs / groupSize)
  const part = (kind: string, dtypes: string[], columns: number) =>
    partOf(qweight, { name: `${module}.${kind}`, dtypes, shape: [groups, columns] }, tensors)
  const scales = part('scales', ['F16', 'BF16', 'F32'], outputs)
  return { ...sizes, qweight, qzeros: part('qzeros', ['I32'], outputs / 8), scales }
}

/** Groups out of order are no blocks of q4a. */
const dtypeOf = ({ groups }: Matrix) => (groups ? 'Q8_0' : 'Q4_1')

/** Bytes of words of qweight that are read at once. */
const bandBytes = 1 << 20

async function blocksOf(matrix: Matrix): Promise<Uint8Array> {
  const { outputs, inputs, qweight, codes } = matrix
  const { bytes } = layoutOf(dtypeOf(matrix))
  const rowBlocks = inputs / BLOCK
  const blocks = new Uint8Array(outputs * rowBlocks * bytes)
  const encode = await encoderOf(matrix, blocks)
  const inputBytes = (outputs * BLOCK) / 2 // of the codes of a block's inputs
  const band = Math.max(1, Math.floor(bandBytes / inputBytes))
  for (let first = 0; first < rowBlocks; first += band) {
    const count = Math.min(band, rowBlocks - first)
    const words = wordsOf(await qweight.read(first * inputBytes, count * inputBytes))
    const own = new Uint32Array(4 * count)
    for (let o = 0; o < outputs; o++) {
      for (let k = 0; k < own.length; k++) own[k] = codes(words, o, k)
      encode(own, o, first)
    }
    await turn()
  }
  return blocks
}

/** Writes an output's codes, eight in a word, from block `first` of its row on. */
type Encode = (codes: Uint32Array, output: number, first: number) => void

async function encoderOf(matrix: Matrix, blocks: Uint8Array<ArrayBuffer>): Promise<Encode> {
  const { outputs, inputs, groupSize, groups } = matrix
  const rowBlocks = inputs / BLOCK
  const scales = await readFloats(matrix.scales) // [G, O]
  const halves = asHalves(scales, matrix.scales)
  const zeros = matrix.zeros(wordsOf(await matrix.qzeros.read())) // [G, O]
  const minima = asHalves(
    scales.map((scale, i) => -zeros[i] * scale),
    matrix.scales,
  )
  if (!groups) {
    const words = new Uint32Array(blocks.buffer)
    return (codes, output, first) => {
      const at = (output * rowBlocks + first) * blockWords
      for (let b = 0; b < codes.length / 4; b++) {
        const g = Math.floor(((first + b) * BLOCK) / groupSize) * outputs + output
        writeBlock(words, at + b * blockWords, codes, 4 * b, halves[g], minima[g])
      }
    }
  }
  return (codes, output, first) => {
    const values = new Float32Array(8 * codes.length)
    for (let i = 0; i < values.length; i++) {
      const g = groups[first * BLOCK + i] * outputs + output
      values[i] = (((codes[i >>> 3] >>> (4 * (i & 7))) & 15) - zeros[g]) * scales[g]
    }
    blocks.set(quantizeQ8(values), (output * rowBlocks + first) * storedTypes.q8.bytes)
  }
}
