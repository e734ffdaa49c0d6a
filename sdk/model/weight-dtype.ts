import { type FloatDType, fitsBlocks } from '../dtype.ts'
import { isRoundedAgain, type StoredTensor, storedDType } from '../formats/stored.ts'
import { isTable } from './names.ts'

/** The dtype that a weight is held in. */
export const weightDType = (name: string, stored: StoredTensor, wanted: 'auto' | FloatDType): FloatDType =>
  wanted === 'auto' ? fitting(stored.shape, () => storedDType(stored)) : askedDType(name, stored.shape, wanted)

/** The same of any weight that is asked for in a dtype: beside 4 bits tables are q8. */
export const askedDType = (name: string, shape: readonly number[], wanted: FloatDType): FloatDType =>
  fitting(shape, () => ((wanted === 'q4' || wanted === 'q4a') && isTable(name) ? 'q8' : wanted))

/** Vectors are f32; matrices as said, f16 where a row is no multiple of a block. */
function fitting(shape: readonly number[], of: () => FloatDType): FloatDType {
  if (shape.length === 1) return 'f32'
  const dtype = of()
  return fitsBlocks(dtype, shape[1]) ? dtype : 'f16'
}

/** What becomes of weights that are quantized already in other types than those that they open in; null where nothing does. */
export function roundedAgain(
  weights: Iterable<readonly [name: string, stored: StoredTensor]>,
  wanted: 'auto' | FloatDType,
): string | null {
  const counts = new Map<string, number>()
  for (const [name, stored] of weights) {
    const dtype = weightDType(name, stored, wanted)
    const change = `of ${stored.dtype} to ${dtype}`
    if (isRoundedAgain(stored, dtype)) counts.set(change, (counts.get(change) ?? 0) + 1)
  }
  if (counts.size === 0) return null
  const changes = [...counts].map(([change, count]) => `${count} ${count === 1 ? 'tensor' : 'tensors'} ${change}`)
  return `its quantized weights are rounded once more, ${changes.join(', ')}`
}
