// Prints GFLOP/s of the matrix kernels at the floor's shape and the time of one decode product, with 1 and 2 threads.
import type { DType, TensorType } from '../../sdk/dtype.ts'
import { Graph } from '../../sdk/graph/graph.ts'
import { toProgram } from '../../sdk/graph/program.ts'
import type { OpSpec } from '../../sdk/graph/spec.ts'
import { linearOp } from '../../sdk/ops/linear.ts'
import { linearBackInputOp, linearBackWeightOp } from '../../sdk/ops/linear-back.ts'
import { vocabPickOp } from '../../sdk/ops/vocab-pick.ts'
import type { Buffer, Target } from '../../sdk/target.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'

interface Argument extends TensorType {
  readonly kind: 'input' | 'weight' | 'state'
}

/** Best milliseconds of one op: `repeat` nodes in one program, so that the run's own cost does not count. */
async function time(target: Target, spec: OpSpec, args: readonly Argument[], repeat: number): Promise<number> {
  const g = new Graph()
  const bound: Record<string, Buffer> = {}
  const inputs: Record<string, ArrayBufferView> = {}
  const tensors = args.map(({ kind, ...type }, i) => {
    const name = `argument${i}`
    if (kind === 'input') {
      const bytes = type.shape.reduce((n, d) => n * d, 1)
      inputs[name] = type.dtype === 'i32' ? new Int32Array(bytes) : new Float32Array(bytes).fill(0.5)
      return g.input(name, type)
    }
    bound[name] = target.create(type, name)
    return kind === 'weight' ? g.weight(name, type) : g.state(name, type)
  })
  for (let r = 0; r < repeat; r++) {
    const outputs = g.apply(
      spec,
      tensors.map((t) => (t.kind === 'state' ? g.newest.get(t.name)! : t)),
      {},
    )
    if (outputs[0].kind !== 'state') g.output(`y${r}`, outputs[0])
  }
  const executable = await target.compile(toProgram(g, spec.name), bound)
  let best = Number.POSITIVE_INFINITY
  for (let round = 0; round < 5; round++) {
    const start = performance.now()
    await executable.run(inputs, { keep: [] })
    best = Math.min(best, (performance.now() - start) / repeat)
  }
  executable.free()
  for (const buffer of Object.values(bound)) target.free(buffer)
  return best
}

const input = (dtype: DType, ...shape: number[]): Argument => ({ kind: 'input', dtype, shape })
const weight = (dtype: DType, ...shape: number[]): Argument => ({ kind: 'weight', dtype, shape })
const state = (...shape: number[]): Argument => ({ kind: 'state', dtype: 'f32', shape })

const [N, I, O] = [128, 896, 4864]
const flops = 2 * N * I * O

for (const threads of [1, 2]) {
  const target = await wasmTarget({ threads })
  const rate = (ms: number, work = flops) => `${(work / ms / 1e6).toFixed(1)} GFLOP/s`
  const report = async (label: string, spec: OpSpec, args: readonly Argument[], work = flops, repeat = 4) => {
    const ms = await time(target, spec, args, repeat)
    console.log(`${threads} threads  ${label.padEnd(44)} ${ms.toFixed(3).padStart(9)} ms  ${rate(ms, work)}`)
  }
  for (const dtype of ['f32', 'f16', 'q8', 'q4'] as const)
    await report(`linear ${N}x${I} by ${dtype} ${O}x${I}`, linearOp, [input('f32', N, I), weight(dtype, O, I)])
  await report('linearBackInput q4', linearBackInputOp, [input('f32', N, O), weight('q4', O, I)])
  await report('linearBackWeight', linearBackWeightOp, [input('f32', N, O), input('f32', N, I), state(O, I)])
  for (const dtype of ['f32', 'q8', 'q4'] as const)
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
