import { concatenate } from '../../sdk/bytes.ts'
import type { FloatDType } from '../../sdk/dtype.ts'
import { convertedChunks, type StoredTensor } from '../../sdk/formats/stored.ts'

/** The tensor's numbers as canonical bytes of `dtype`, in one piece. */
export async function readAs(tensor: StoredTensor, dtype: FloatDType): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  for await (const chunk of convertedChunks(tensor, dtype)) chunks.push(chunk)
  return concatenate(chunks)
}
