// Prints GFLOP/s of the matrix kernels at the floor's shape and the time of one decode product, with 1 and 2 threads.
import type { DType } from '../../sdk/dtype.ts'
import type { OpSpec } from '../../sdk/graph/spec.ts'
import { linearOp } from '../../sdk/ops/linear.ts'
import { linearBackInputOp, linearBackWeightOp } from '../../sdk/ops/linear-back.ts'
import { vocabPickOp } from '../../sdk/ops/vocab-pick.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { type Argument, timeOp } from './time-op.ts'

const input = (dtype: DType, ...shape: number[]): Argument => ({ kind: 'input', dtype, shape })
const weight = (dtype: DType, ...shape: number[]): Argument => ({ kind: 'weight', dtype, shape })
const state = (...shape: number[]): Argument => ({ kind: 'state', dtype: 'f32', shape })

const [N, I, O] = [128, 896, 4864]
const flops = 2 * N * I * O

for (const threads of [1, 2]) {
  const target = await wasmTarget({ threads })
  const rate = (ms: number, work = flops) => `${(work / ms / 1e6).toFixed(1)} GFLOP/s`
  const report = async (label: string, spec: OpSpec, args: readonly Argument[], work = flops, repeat = 4) => {
    const ms = await timeOp(target, spec, args, repeat)
    console.log(`${threads} threads  ${label.padEnd(44)} ${ms.toFixed(3).padStart(9)} ms  ${rate(ms, work)}`)
  }
  for (const dtype of ['f32', 'f16', 'q8', 'q4a', 'q4'] as const)
    await report(`linear ${N}x${I} by ${dtype} ${O}x${I}`, linearOp, [input('f32', N, I), weight(dtype, O, I)])
  for (const dtype of ['q4a', 'q4'] as const)
    await report(`linearBackInput ${dtype}`, linearBackInputOp, [input('f32', N, O), weight(dtype, O, I)])
  await report('linearBackWeight', linearBackWeightOp, [input('f32', N, O), input('f32', N, I), state(O, I)])
  for (const dtype of ['f32', 'q8', 'q4a', 'q4'] as const)
    for (const rows of [1, 2, 4, 8])
      await report(
        `linear, ${rows} row(s), ${dtype} ${O}x${I}`,
        linearOp,
        [input('f32', rows, I), weight(dtype, O, I)],
        2 * rows * I * O,
        50,
      )
  await report(
    'vocabPick, 64 rows, q8 151936x896',
    vocabPickOp,
    [input('f32', 64, I), weight('q8', 151936, I), input('i32', 64, 1), input('f32', 1)],
    2 * 64 * I * 151936,
    1,
  )
  await target.close()
}
