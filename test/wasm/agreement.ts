import { afterAll, beforeAll, expect } from 'vitest'
import type { OpCase, OpSpec } from '../../sdk/graph/spec.ts'
import type { Target } from '../../sdk/target.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { difference, expectedOf, fillCase, runCase, sameBytes } from '../suite.ts'

/**
 * Opens the wasm target with 1, 2 and 3 threads and without shared memory for the tests of a file. The function
 * returned runs a case on all of them, in place where the op allows it too: as the reference, and the same bits
 * everywhere. It resolves to the results.
 */
export function agreement() {
  const targets = new Map<string, Target>()
  beforeAll(async () => {
    for (const threads of [1, 2, 3]) targets.set(`${threads} threads`, await wasmTarget({ threads }))
    targets.set('without shared memory', await wasmTarget({ shared: false }))
  })
  afterAll(() => Promise.all([...targets.values()].map((target) => target.close())))

  return async (op: unknown, c: OpCase) => {
    const spec = op as OpSpec
    const filled = fillCase(spec, c)
    const first = await runCase(targets.get('1 threads')!, spec, c, filled)
    expect(difference(first, expectedOf(spec, c, filled), c.tolerance?.value)).toBeNull()
    for (const [label, target] of targets)
      for (const viaTemps of [false, true]) {
        const other = await runCase(target, spec, c, filled, viaTemps)
        const different = Object.keys(first).filter((key) => !sameBytes(bytesOf(first[key]), bytesOf(other[key])))
        expect(different, `${label}${viaTemps ? ', in place' : ''}`).toEqual([])
      }
    return first
  }
}

const bytesOf = (a: ArrayBufferView) => new Uint8Array(a.buffer, a.byteOffset, a.byteLength)

export const one = (name: string, inputs: OpCase['inputs'], attrs: OpCase['attrs'] = {}): OpCase => ({
  name,
  inputs,
  attrs,
})
