// Runs in the browser: every op case on the page's own WebGPU, beside the op's reference.
import { openWebGpu } from '../../targets/webgpu/node.ts'
import { failingCases } from './cases.ts'

export interface CasesRun {
  readonly description: string
  readonly wrong: readonly string[]
}

async function runCases(): Promise<CasesRun> {
  const target = await openWebGpu({ defaultLimits: true })
  const wrong = await failingCases(target)
  const { description } = target.info
  await target.close()
  return { description, wrong }
}

Object.assign(globalThis, { runCases })
