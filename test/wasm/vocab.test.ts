import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { DType } from '../../sdk/dtype.ts'
import type { OpCase } from '../../sdk/graph/spec.ts'
import { floats, frozen, ints, normal } from '../../sdk/ops/cases.ts'
import { vocabPickOp } from '../../sdk/ops/vocab-pick.ts'
import { vocabPickBackOp, vocabPickBackTableOp } from '../../sdk/ops/vocab-pick-back.ts'
import type { Target } from '../../sdk/target.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { instantiate } from '../../targets/wasm/kernels.ts'
import { matrix } from '../../targets/wasm/lower/matrix.ts'
import { compileKernels } from '../../targets/wasm/node.ts'
import { difference, expectedOf, fillCase, runCase } from '../suite.ts'

const targets: Target[] = []
beforeAll(async () => {
  for (const threads of [1, 2, 3]) targets.push(await wasmTarget({ threads }))
})
afterAll(() => Promise.all(targets.map((target) => target.close())))

// 1024 rows make slices of 1024 ids: three of them, the last one short and odd.
const [R, V, C, K] = [1024, 2050, 5, 3]
const ids = Array.from({ length: R * K }, (_, i) => (i % 7 === 3 ? -1 : (Math.floor(i / K) * 37 + (i % K) * 1023) % V))

const forward = (temperature: number, dtype: DType = 'f32', spread = 1, width = C) => [
  normal([R, width], spread),
  frozen(dtype, [V, width]),
  ints(ids, [R, K]),
  floats([temperature]),
]

async function everywhere(spec: Parameters<typeof fillCase>[0], c: OpCase) {
  const filled = fillCase(spec, c)
  const [single, ...others] = [
    await runCase(targets[0], spec, c, filled),
    await runCase(targets[1], spec, c, filled),
    await runCase(targets[2], spec, c, filled),
  ]
  for (const other of others) expect(other).toEqual(single)
  return { single, expected: expectedOf(spec, c, filled) }
}

describe('the vocabulary in slices', () => {
  it.each([
    ['T = 1', forward(1)],
    ['T = 0.6', forward(0.6)],
    ['peaked', forward(1, 'f32', 6)],
    ['q8', forward(1, 'q8', 0.3, 32)],
  ] as const)('vocabPick, %s', async (name, inputs) => {
    const { single, expected } = await everywhere(vocabPickOp, { name, inputs, attrs: {} })
    expect(difference(single, expected)).toBeNull()
  })

  it.each([
    ['vocabPickBack', vocabPickBackOp],
    ['vocabPickBackTable', vocabPickBackTableOp],
  ] as const)('%s', async (name, spec) => {
    const pick = { name, inputs: forward(0.8), attrs: {} }
    const filled = fillCase(vocabPickOp, pick)
    // lse, entropy and tail belong to h.
    const results = expectedOf(vocabPickOp, pick, filled)
    const [, lse, entropy, tail] = [0, 1, 2, 3].map((o) => floats([...results[`output${o}`]]))
    const given = filled.slice(0, 2).map(({ data }, i) => ({
      ...pick.inputs[i],
      fill: { kind: 'values' as const, values: [...data] },
    }))
    const gradients = [normal([R, K]), normal([R]), normal([R]), normal([R])]
    const state = spec === vocabPickBackTableOp ? [normal([V, C])] : []
    const inputs = [
      ...gradients,
      ...given,
      ...pick.inputs.slice(2),
      ...[lse, entropy, tail].map((t) => ({ ...t })),
      ...state,
    ]
    const { single, expected } = await everywhere(spec, { name, inputs, attrs: {} })
    expect(difference(single, expected)).toBeNull()
  })
})

it('keeps the digits of a small tail and entropy', async () => {
  // z = (20, 0, ..., 0): the picked id holds all but 1e-6 of the mass.
  const width = 4
  const table = new Float64Array(1000 * width)
  table[7 * width] = 20
  const c: OpCase = {
    name: 'small tail',
    inputs: [floats([1, 0, 0, 0], [1, width]), floats([...table], [1000, width]), ints([7], [1, 1]), floats([1])],
    attrs: {},
  }
  const got = await runCase(targets[0], vocabPickOp, c, fillCase(vocabPickOp, c))
  const outside = 999 * Math.exp(-20)
  const relative = (value: number, want: number) => Math.abs(value / want - 1)
  expect(relative(got.output3[0], Math.log(outside) - Math.log1p(outside))).toBeLessThan(1e-6)
  expect(relative(got.output0[0], -Math.log1p(outside))).toBeLessThan(1e-5)
  expect(relative(got.output2[0], Math.log1p(outside) + (20 * outside) / (1 + outside))).toBeLessThan(1e-5)
})

it('never holds [R, V]', async () => {
  const types = [
    { dtype: 'f32', shape: [512, 896] },
    { dtype: 'q8', shape: [151936, 896] },
    { dtype: 'i32', shape: [512, 1] },
    { dtype: 'f32', shape: [1] },
  ] as const
  const outputs = [[512, 1], [512], [512], [512]].map((shape) => ({ dtype: 'f32', shape }) as const)
  const memory = new WebAssembly.Memory({ initial: 17, maximum: 65536 })
  const kernels = instantiate(await compileKernels('kernels-single'), memory)
  const { scratchBytes, calls } = matrix.vocabPick({
    inputs: types,
    outputs,
    attrs: {},
    threads: 2,
    quads: false,
    ...kernels,
  })
  expect(scratchBytes).toBeLessThan(5 * 2 ** 20)
  const made = calls({ inputs: [64, 64, 64, 64], outputs: [64, 64, 64, 64], scratch: 64 })
  expect(made.filter(([kernel]) => kernel === 'linear')).toHaveLength(Math.ceil(151936 / 2048))
})
