import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { safetensorsChunks, type TensorData } from '../../sdk/formats/safetensors.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { weightShapes } from '../../sdk/model/names.ts'
import { fromFloats, toFloats } from '../../sdk/quant/convert.ts'
import { halfToNumber, numberToHalf } from '../../sdk/quant/float16.ts'
import { integers } from './shared.ts'
import { randomFloats, tinyConfig, tinyTokenizer } from './tiny-source.ts'

// Folders of a tiny Qwen2 as AutoAWQ, GPTQModel and mlx_lm write them, with random codes, scales and zeros. Made from the formats'
// specifications (they stand in sdk/formats/awq.ts, gptq.ts, mlx.ts) with code of its own; no file of those programs was at hand.

export const config = {
  ...tinyConfig,
  model_type: 'qwen2',
  hidden_size: 128,
  intermediate_size: 256,
}

/** A quantized matrix as its tensors, and what they stand for. */
export interface Packed {
  readonly tensors: TensorData[]
  /** [O, I], in f64 */
  readonly values: Float64Array
  /** How far off a value may be. */
  readonly bounds: Float64Array
}

export type Pack = (module: string, outputs: number, inputs: number, seed: number) => Packed

const bytes = (array: Uint32Array | Uint16Array): Uint8Array => new Uint8Array(array.buffer)
const grid = <T>(rows: number, columns: number, at: () => T): T[][] =>
  Array.from({ length: rows }, () => Array.from({ length: columns }, at))

/** Eight numbers below 16 in a word, the first in the lowest bits. */
const word = (eight: readonly number[]): number => eight.reduce((sum, x, i) => sum + x * 16 ** i, 0)

const words = (rows: number, columns: number, eight: (row: number, column: number) => number[]): Uint32Array =>
  Uint32Array.from({ length: rows * columns }, (_, i) => word(eight(Math.floor(i / columns), i % columns)))

const eight = [0, 1, 2, 3, 4, 5, 6, 7]

/** What AWQ and GPTQ draw: codes by input, zeros and scales by group of inputs, of each output. */
function drawn(outputs: number, inputs: number, groupOf: readonly number[], seed: number, zero?: number) {
  const next = integers(seed)
  const groups = Math.max(...groupOf) + 1
  const codes = grid(inputs, outputs, () => next(16))
  const zeros = grid(groups, outputs, () => zero ?? next(16))
  const scaleBits = Uint16Array.from({ length: groups * outputs }, () => numberToHalf(0.001 + next(1000) * 1e-5))
  const scale = (group: number, o: number) => halfToNumber(scaleBits[group * outputs + o])
  const each = (of: (i: number, o: number, group: number) => number) =>
    Float64Array.from({ length: outputs * inputs }, (_, at) => {
      const [o, i] = [Math.floor(at / inputs), at % inputs]
      return of(i, o, groupOf[i])
    })
  const values = each((i, o, g) => (codes[i][o] - zeros[g][o]) * scale(g, o))
  const bounds = each((_, o, g) => 2 ** -11 * zeros[g][o] * scale(g, o))
  return { groups, codes, zeros, scaleBits, values, bounds }
}

const inOrder = (inputs: number, groupSize: number): number[] =>
  Array.from({ length: inputs }, (_, i) => Math.floor(i / groupSize))

export const awq =
  (groupSize: number): Pack =>
  (module, outputs, inputs, seed) => {
    const made = drawn(outputs, inputs, inOrder(inputs, groupSize), seed)
    const { groups, codes, zeros, scaleBits, values, bounds } = made
    const order = [0, 2, 4, 6, 1, 3, 5, 7]
    const packed = (rows: number[][]) =>
      words(rows.length, outputs / 8, (row, column) => order.map((k) => rows[row][8 * column + k]))
    const tensors: TensorData[] = [
      { name: `${module}.qweight`, dtype: 'I32', shape: [inputs, outputs / 8], data: bytes(packed(codes)) },
      { name: `${module}.qzeros`, dtype: 'I32', shape: [groups, outputs / 8], data: bytes(packed(zeros)) },
      { name: `${module}.scales`, dtype: 'F16', shape: [groups, outputs], data: bytes(scaleBits) },
    ]
    return { tensors, values, bounds }
  }

export const awqConfig = (groupSize: number) => ({
  quantization_config: {
    quant_method: 'awq',
    bits: 4,
    group_size: groupSize,
    version: 'gemm',
    zero_point: true,
    modules_to_not_convert: null,
  },
})

export interface GptqKind {
  readonly format: 'gptq' | 'gptq_v2'
  readonly sym?: boolean
  /** Inputs in another order than that of their groups. */
  readonly actOrder?: boolean
}

export const gptq =
  (groupSize: number, { format, sym = false, actOrder = false }: GptqKind): Pack =>
  (module, outputs, inputs, seed) => {
    const groupOf = inOrder(inputs, groupSize)
    const next = integers(seed + 1000)
    if (actOrder)
      for (let i = inputs - 1; i > 0; i--) {
        const j = next(i + 1)
        ;[groupOf[i], groupOf[j]] = [groupOf[j], groupOf[i]]
      }
    const made = drawn(outputs, inputs, groupOf, seed, sym ? 8 : undefined)
    const { groups, codes, zeros, scaleBits, values, bounds } = made
    const qweight = words(inputs / 8, outputs, (row, o) => eight.map((k) => codes[8 * row + k][o]))
    const v2 = words(groups, outputs / 8, (row, column) => eight.map((k) => zeros[row][8 * column + k]))
    const qzeros = format === 'gptq' ? v2.map((x) => x - 0x11111111) : v2
    const tensors: TensorData[] = [
      { name: `${module}.qweight`, dtype: 'I32', shape: [inputs / 8, outputs], data: bytes(qweight) },
      { name: `${module}.qzeros`, dtype: 'I32', shape: [groups, outputs / 8], data: bytes(qzeros) },
      { name: `${module}.scales`, dtype: 'F16', shape: [groups, outputs], data: bytes(scaleBits) },
      { name: `${module}.g_idx`, dtype: 'I32', shape: [inputs], data: bytes(Uint32Array.from(groupOf)) },
    ]
    return { tensors, values, bounds }
  }

export const gptqConfig = (groupSize: number, { format, sym = false, actOrder = false }: GptqKind) => ({
  quantization_config: {
    quant_method: 'gptq',
    bits: 4,
    group_size: groupSize,
    desc_act: actOrder,
    sym,
    damp_percent: 0.01,
    true_sequential: true,
    checkpoint_format: format,
  },
})

export const mlx =
  (groupSize: number, dtype: 'F16' | 'BF16' | 'F32'): Pack =>
  (module, outputs, inputs, seed) => {
    const next = integers(seed)
    const groups = inputs / groupSize
    const codes = grid(outputs, inputs, () => next(16))
    const type = ({ F16: 'f16', BF16: 'bf16', F32: 'f32' } as const)[dtype]
    const numbersFrom = (least: number, step: number) => {
      const data = fromFloats(
        Float32Array.from({ length: outputs * groups }, () => least + next(1000) * step),
        type,
      )
      return { data, numbers: toFloats(data, type) }
    }
    const [scales, biases] = [numbersFrom(0.001, 1e-5), numbersFrom(-0.1, 1e-4)]
    const each = (of: (scale: number, code: number, bias: number) => number) =>
      Float64Array.from({ length: outputs * inputs }, (_, at) => {
        const [o, i] = [Math.floor(at / inputs), at % inputs]
        const group = o * groups + Math.floor(i / groupSize)
        return of(scales.numbers[group], codes[o][i], biases.numbers[group])
      })
    const weight = words(outputs, inputs / 8, (o, column) => eight.map((k) => codes[o][8 * column + k]))
    const tensors: TensorData[] = [
      { name: `${module}.weight`, dtype: 'U32', shape: [outputs, inputs / 8], data: bytes(weight) },
      { name: `${module}.scales`, dtype, shape: [outputs, groups], data: scales.data },
      { name: `${module}.biases`, dtype, shape: [outputs, groups], data: biases.data },
    ]
    // In f32, as ggml reads Q4_1: a product and a sum.
    const values = each((scale, code, bias) => Math.fround(Math.fround(scale * code) + bias))
    const bounds = each((scale, code, bias) =>
      dtype === 'F16' ? 0 : 2 ** -11 * (Math.abs(scale * code) + Math.abs(bias)),
    )
    return { tensors, values, bounds }
  }

export const mlxConfig = (groupSize: number) => {
  const quantization = { group_size: groupSize, bits: 4, mode: 'affine' }
  return { quantization, quantization_config: quantization }
}

/** The tensors of the model: matrices packed (`tables` too, or else f16), the rest f16. */
export function packedModel(pack: Pack, tables: boolean, changes: Record<string, unknown> = {}) {
  const tensors: TensorData[] = []
  const matrices = new Map<string, Packed>()
  let seed = 0
  for (const [name, shape] of weightShapes(parseConfig({ ...config, ...changes }, 'tiny'))) {
    seed++
    if (shape.length === 2 && (tables || name !== 'model.embed_tokens.weight')) {
      const packed = pack(name.replace(/\.weight$/, ''), shape[0], shape[1], seed)
      tensors.push(...packed.tensors)
      matrices.set(name, packed)
    } else {
      const floats = randomFloats(
        shape.reduce((a, b) => a * b, 1),
        seed,
      )
      tensors.push({ name, dtype: 'F16', shape, data: fromFloats(floats, 'f16') })
    }
  }
  return { tensors, matrices }
}

export function writeFolder(path: string, tensors: readonly TensorData[], own: object): string {
  mkdirSync(path, { recursive: true })
  const files = { 'config.json': { ...config, ...own }, 'tokenizer.json': tinyTokenizer() }
  for (const [name, json] of Object.entries(files)) writeFileSync(join(path, name), JSON.stringify(json))
  writeFileSync(join(path, 'model.safetensors'), Buffer.concat(safetensorsChunks(tensors)))
  return path
}
