import { byteLength } from '../dtype.ts'
import { OptionError } from '../errors.ts'
import { checkWord, shown } from '../options.ts'
import type { ModelConfig } from './config.ts'

/** How keys and values are kept: f16 takes half of the memory, and rounds them to 11 bits. */
export type CacheDType = 'f32' | 'f16'
export const cacheDTypes = ['f32', 'f16'] as const satisfies CacheDType[]

/** What answers are computed with. */
export interface Precision {
  /** Of keys and values; default f32. */
  readonly cacheDType?: CacheDType
  /** Default false: where the target has kernels for it, products with quantized weights round their input to int8 in blocks of 32 (beside q8 to int16). */
  readonly exactActivations?: boolean
}

/** Throws OptionError. */
export function checkPrecision({ cacheDType, exactActivations }: Precision): void {
  checkWord(cacheDType, cacheDTypes, 'cacheDType')
  if (!['boolean', 'undefined'].includes(typeof exactActivations))
    throw new OptionError(`exactActivations: wanted true or false, got ${shown(exactActivations)}`)
}

/** Bytes of the keys and values of so many slots of so many positions. */
export const cacheBytes = (
  c: Pick<ModelConfig, 'numHiddenLayers' | 'numKeyValueHeads' | 'headDim'>,
  slots: number,
  positions: number,
  dtype: CacheDType,
): number => 2 * c.numHiddenLayers * byteLength({ dtype, shape: [slots, c.numKeyValueHeads, positions, c.headDim] })
