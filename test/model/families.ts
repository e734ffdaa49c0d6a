import { readFileSync } from 'node:fs'
import type { ModelConfig } from '../../sdk/model/config.ts'
import { weightShapes } from '../../sdk/model/names.ts'
import { stored } from '../formats/tiny-source.ts'

// Tiny random checkpoints of several families, and what transformers says of them (make_families.py).

interface Golden {
  readonly made: string
  readonly ids: readonly number[][]
  readonly families: readonly {
    readonly title: string
    readonly config: Record<string, unknown>
    /** Of each next token of the two rows. */
    readonly logProbs: readonly number[][]
    /** Both rows a step. */
    readonly curve: readonly { loss: number; norm: number }[]
  }[]
}
export const golden = JSON.parse(readFileSync(new URL('families.json', import.meta.url), 'utf8')) as Golden

/** As make_families.py makes them: uniform in [-scale, scale), of the name and each element's number. */
export function numbers(name: string, shape: readonly number[], scale: number, plus = 0): Float32Array {
  let seed = 0
  for (const c of name) seed = (Math.imul(seed, 31) + c.charCodeAt(0)) >>> 0
  return Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => {
    let h = (Math.imul(i, 2654435761) + seed) >>> 0
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
    h = (h ^ (h >>> 16)) >>> 0
    return Math.fround((h / 2 ** 31 - 1) * scale) + plus
  })
}

export const bytes = (x: Float32Array) => new Uint8Array(x.buffer)

/** Norms are about 0 where 1 is added to them, else 1. */
export const tensors = (c: ModelConfig) =>
  new Map(
    [...weightShapes(c)].map(([name, shape]) => {
      const [scale, plus] = !name.includes('norm') ? [0.3] : c.normOffset ? [0.3] : [0, 1]
      return [name, stored(name, 'F32', shape, bytes(numbers(name, shape, scale, plus)))] as const
    }),
  )
