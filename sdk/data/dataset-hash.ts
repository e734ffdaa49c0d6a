import type { Example } from './tokenize.ts'

/** 64 bits of all tokens and labels, in order: another data set, template or masking has another (two lanes of FNV-1a). */
export function datasetHash(examples: readonly Pick<Example, 'inputIds' | 'labels'>[]): string {
  let [a, b] = [0x811c9dc5, 0x1b873593]
  const add = (value: number) => {
    a = Math.imul(a ^ value, 0x01000193)
    a ^= a >>> 15
    b = Math.imul(b ^ value, 0x85ebca6b)
    b ^= b >>> 13
  }
  for (const { inputIds, labels } of examples) {
    add(inputIds.length)
    for (let t = 0; t < inputIds.length; t++) {
      add(inputIds[t])
      add(labels[t])
    }
  }
  return [a, b].map((half) => (half >>> 0).toString(16).padStart(8, '0')).join('')
}
