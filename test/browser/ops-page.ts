// Runs in the browser: every op case on the page's own WebGPU, beside the op's reference.
import { ops } from '../../sdk/ops/index.ts'
import { difference, expectedOf, fillCase, runCase } from '../../sdk/self-test.ts'
import { openWebGpu } from '../../targets/webgpu/node.ts'

export interface CasesRun {
  readonly description: string
  readonly passed: number
  readonly wrong: readonly string[]
}

async function runCases(): Promise<CasesRun> {
  const target = await openWebGpu({ defaultLimits: true })
  const wrong: string[] = []
  let passed = 0
  for (const spec of Object.values(ops))
    for (const c of spec.cases) {
      const filled = fillCase(spec, c)
      const problem = await runCase(target, spec, c, filled).then(
        (got) => difference(got, expectedOf(spec, c, filled), c.tolerance?.value),
        (error: Error) => error.message,
      )
      if (problem === null) passed++
      else wrong.push(`${spec.name}, ${c.name}: ${problem}`)
    }
  const { description } = target.info
  await target.close()
  return { description, passed, wrong }
}

Object.assign(globalThis, { runCases })
