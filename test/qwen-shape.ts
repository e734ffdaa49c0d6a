import type { StoredTensor } from '../sdk/formats/safetensors.ts'
import { parseConfig } from '../sdk/model/config.ts'
import { Model } from '../sdk/model/model.ts'
import { weightShapes } from '../sdk/model/names.ts'
import type { Target } from '../sdk/target.ts'
import { qwenConfig } from './bench/qwen-shape.ts'

/** Qwen2.5-0.5B's widths and vocabulary with random numbers, made in memory: matrices as q4, the vocabulary table as q8. */
export function qwenModel(target: Target, layers: number): Promise<Model> {
  const config = parseConfig({ ...qwenConfig, num_hidden_layers: layers, max_position_embeddings: 4096 }, 'random')
  const tensors = new Map<string, StoredTensor>()
  for (const [name, shape] of weightShapes(config)) {
    const matrix = shape.length === 2
    const table = name === 'model.embed_tokens.weight'
    const dtype = table ? 'Q8_0' : matrix ? 'Q4_0' : 'F32'
    const count = shape.reduce((a, b) => a * b, 1)
    const bytes = table ? (count / 32) * 34 : matrix ? (count / 32) * 18 : count * 4
    const whole = (): Uint8Array => {
      if (matrix) return randomBlocks(name, bytes, table ? 34 : 18, table ? 0x0d00 : 0x1c80)
      return new Uint8Array(new Float32Array(count).fill(name.includes('norm') ? 1 : 0.02).buffer)
    }
    // Made once, though it is read in pieces.
    let made: Uint8Array | undefined
    const read = async (offset = 0, length = bytes - offset) => {
      made ??= whole()
      const piece = made.subarray(offset, offset + length)
      if (offset + length === bytes) made = undefined
      return piece
    }
    tensors.set(name, { name, dtype, shape, bytes, file: 'random', read })
  }
  return Model.load(target, config, tensors, 'random', { dtype: 'auto' })
}

/** Blocks of random integers, all with one scale (f16 bits) that makes their standard deviation about 0.02. */
function randomBlocks(name: string, bytes: number, block: number, scale: number): Uint8Array {
  let state = 1
  for (const character of name) state = Math.imul(state, 31) + character.charCodeAt(0)
  const words = new Uint32Array(Math.ceil(bytes / 4))
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[i] = state
  }
  const all = new Uint8Array(words.buffer, 0, bytes)
  for (let at = 0; at < bytes; at += block) {
    all[at] = scale & 255
    all[at + 1] = scale >>> 8
  }
  return all
}
