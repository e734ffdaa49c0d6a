// Runs in the browser: every op case on the page's own WebGPU, beside the op's reference.
import { openGpu } from '../webgpu/gpu.ts'
import { failingCases } from './cases.ts'

export interface CasesRun {
  readonly description: string
  readonly wrong: readonly string[]
}

async function runCases(): Promise<CasesRun> {
  const { target } = await openGpu()
  const wrong = await failingCases(target)
  const { description } = target.info
  await target.close()
  return { description, wrong }
}

Object.assign(globalThis, { runCases })
