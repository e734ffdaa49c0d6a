import { elementCount } from '../../sdk/dtype.ts'
import { type StoredTensor, storedDType } from '../../sdk/formats/stored.ts'
import type { StoredModel } from '../../sdk/formats/stored-model.ts'
import { quantizeModel } from '../../sdk/index.ts'
import { toFloats } from '../../sdk/quant/convert.ts'
import { readAs } from '../formats/read-as.ts'

/** A tensor as it is held in memory, as numbers: made whole once, since it is read in pieces. */
function held(tensor: StoredTensor): StoredTensor {
  const bytes = 4 * elementCount(tensor.shape)
  let made: Promise<Float32Array> | undefined
  const floats = async () => {
    const dtype = storedDType(tensor)
    return toFloats(await readAs(tensor, dtype), dtype)
  }
  return {
    ...tensor,
    dtype: 'F32',
    bytes,
    async read(at = 0, length = bytes - at) {
      made ??= floats()
      const { buffer } = await made
      if (at + length === bytes) made = undefined
      return new Uint8Array(buffer, at, length)
    },
  }
}

/** Writes an HF folder in f32 with exactly the numbers that a model has when it is opened as stored: for PyTorch. */
export async function writeHeld(source: StoredModel, folder: string): Promise<void> {
  const tensors = new Map([...source.tensors].map(([name, tensor]) => [name, held(tensor)]))
  await quantizeModel({ ...source, tensors }, folder, { dtype: 'f32', force: true })
}
