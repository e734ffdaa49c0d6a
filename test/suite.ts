import { existsSync } from 'node:fs'
import { nameCounter, normal } from '../sdk/random.ts'
import type { Target } from '../sdk/target.ts'
import { referenceTarget } from '../targets/reference/index.ts'
import { useSwiftShader } from './swiftshader.ts'

export * from '../sdk/self-test.ts'

/** Standard normal numbers, the same for the same seed text. */
export function normals(seed: string): () => number {
  let drawn = 0
  return () => normal(nameCounter(seed), drawn++)
}

// What the tests of ops share: the targets at hand, and running one op case on one of them (sdk/self-test.ts).

export interface Candidate {
  readonly label: string
  /** Why it cannot be tested here. */
  readonly skip?: string
  open(): Promise<Target>
}

/** Every target of this build; those that cannot run carry the reason. */
export async function candidates(): Promise<Candidate[]> {
  return [
    { label: 'reference', open: async () => referenceTarget() },
    ...(await wasmCandidates()),
    await cpuCandidate(),
    webgpuCandidate(),
  ]
}

async function cpuCandidate(): Promise<Candidate> {
  const { onnxTarget } = await import('../targets/onnx/index.ts')
  const skip = await onnxTarget().then(
    (target) => target.close().then(() => undefined),
    (error: Error) => error.message,
  )
  return { label: 'cpu, onnxruntime', skip, open: () => onnxTarget({ threads: 2 }) }
}

function webgpuCandidate(): Candidate {
  return {
    label: 'webgpu, SwiftShader',
    skip: useSwiftShader(),
    open: async () => (await (await import('./webgpu/gpu.ts')).openGpu()).target,
  }
}

async function wasmCandidates(): Promise<Candidate[]> {
  const module = new URL('../targets/wasm/index.ts', import.meta.url)
  const none = (skip: string): Candidate[] => [{ label: 'wasm', skip, open: () => Promise.reject(new Error(skip)) }]
  if (!existsSync(module)) return none('targets/wasm/index.ts does not exist')
  if (!existsSync(new URL('../kernels-as/dist', import.meta.url))) return none('kernels are not built: npm run build')
  const { wasmTarget } = (await import(module.href)) as {
    wasmTarget(options: { threads: number; build: 'plain' | 'relaxed' }): Promise<Target>
  }
  const open = (threads: number, build: 'plain' | 'relaxed') => ({ open: () => wasmTarget({ threads, build }) })
  const plain = [1, 2].map((threads) => ({ label: `wasm, ${threads} threads`, ...open(threads, 'plain') }))
  // Where the engine does not know relaxed SIMD there is nothing to hold to anything: test/wasm/runtime.test.ts says so.
  const isKnown = await open(1, 'relaxed')
    .open()
    .then((target) => target.close())
    .then(
      () => true,
      (error: Error) => {
        if (!/relaxed SIMD/.test(error.message)) throw error
        return false
      },
    )
  const relaxed = [1, 2].map((threads) => ({
    label: `wasm with relaxed SIMD, ${threads} threads`,
    ...open(threads, 'relaxed'),
  }))
  return isKnown ? [...plain, ...relaxed] : plain
}
