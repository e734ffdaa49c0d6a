import { floatDTypes } from '../dtype.ts'
import type { CaseInput, OpCase } from '../graph/spec.ts'
import { floats, frozen, ints, normal, trained } from './cases.ts'

/** What vocabPick and its reverse are held to: dtypes, K 1 and 8, padding ids, peaked rows, sizes across tiles, a whole vocabulary picked. */
export function vocabCases(
  inputs: (
    h: CaseInput,
    table: CaseInput,
    ids: CaseInput,
    temperature: CaseInput,
    size: { rows: number; k: number },
  ) => CaseInput[],
): OpCase[] {
  const one = (name: string, h: CaseInput, table: CaseInput, k: number, temperature = 1, padded = false): OpCase => {
    const rows = h.type.shape[0]
    const vocabulary = table.type.shape[0]
    // k distinct ids a row; every third one is padding where asked
    const ids = Array.from({ length: rows * k }, (_, i) =>
      padded && i % 3 === 1 ? -1 : (Math.floor(i / k) * 17 + (i % k) * 11) % vocabulary,
    )
    return {
      name,
      inputs: inputs(h, table, ints(ids, [rows, k]), floats([temperature]), { rows, k }),
      attrs: {},
    }
  }
  return [
    ...floatDTypes.map((dtype) => one(`${dtype}, 8 ids`, normal([5, 64]), frozen(dtype, [131, 64], 0.2), 8, 1, true)),
    one('1 id, one row', normal([1, 7]), frozen('f32', [13, 7], 0.5), 1),
    one('1 id, temperature', normal([7, 33]), frozen('f32', [65, 33], 0.3), 1, 0.7),
    one('trained', normal([3, 5]), trained([17, 5]), 3, 1.5, true),
    one('peaked', normal([4, 16], 4), trained([37, 16]), 8),
    one('nothing outside', normal([2, 3]), trained([5, 3]), 5),
    one('across tiles', normal([9, 12]), frozen('f32', [1037, 12], 0.5), 2),
  ]
}
