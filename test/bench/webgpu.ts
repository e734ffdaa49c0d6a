// `npx tsx test/bench/webgpu.ts [folder]`: q4 products of the 0.5B shape on webgpu, beside onnxruntime's WebGPU execution provider on the
// same adapter where a folder has it (peers/matmul_nbits.py). HALFLING_VULKAN_ICD names another driver than SwiftShader's.
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { linearOp } from '../../sdk/ops/linear.ts'
import { openWebGpu } from '../../targets/webgpu/node.ts'
import { useSwiftShader } from '../swiftshader.ts'
import { timeOp } from './time-op.ts'

const folder = process.argv[2] && resolve(process.argv[2])
const skip = useSwiftShader()
if (skip) throw new Error(skip)

/** What is used of onnxruntime-node. */
interface Onnx {
  readonly InferenceSession: {
    create(file: string, options: object): Promise<{ run(feeds: object): Promise<unknown>; release(): Promise<void> }>
  }
  readonly Tensor: new (type: 'float32', data: Float32Array, shape: readonly number[]) => unknown
}
const onnx = folder ? (createRequire(join(folder, 'x.js'))('onnxruntime-node') as Onnx) : null

async function timePeer(
  { InferenceSession, Tensor }: Onnx,
  rows: number,
  columns: number,
  inner: number,
  repeat: number,
) {
  const file = join(folder!, `${rows}x${columns}x${inner}.onnx`)
  const session = await InferenceSession.create(file, { executionProviders: ['webgpu'], logSeverityLevel: 3 })
  const x = new Tensor('float32', new Float32Array(rows * inner).fill(0.5), [rows, inner])
  let best = Number.POSITIVE_INFINITY
  for (let round = 0; round < 6; round++) {
    const start = performance.now()
    await session.run({ x })
    best = Math.min(best, (performance.now() - start) / repeat)
  }
  await session.release()
  return best
}

const target = await openWebGpu()
console.log(target.info.description)
for (const [columns, inner] of [
  [896, 896],
  [4864, 896],
  [896, 4864],
  [151936, 896],
])
  for (const rows of columns > 100_000 ? [1] : [1, 64]) {
    const repeat = columns > 100_000 ? 1 : 4
    const types = { x: { dtype: 'f32', shape: [rows, inner] }, w: { dtype: 'q4', shape: [columns, inner] } } as const
    const own = await timeOp(
      target,
      linearOp,
      [
        { kind: 'input', ...types.x },
        { kind: 'weight', ...types.w },
      ],
      repeat,
    )
    const peer = onnx && (await timePeer(onnx, rows, columns, inner, repeat))
    const rate = (ms: number) => `${ms.toFixed(2)} ms, ${((2 * rows * columns * inner) / ms / 1e6).toFixed(2)} GFLOP/s`
    const beside = peer === null ? '' : `; onnxruntime ${rate(peer)}; ours takes ${(own / peer).toFixed(2)}x`
    console.log(`${rows} x ${columns} x ${inner}: ${rate(own)}${beside}`)
  }
await target.close()
