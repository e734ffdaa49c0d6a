import { ops } from '../../sdk/ops/index.ts'
import { difference, expectedOf, fillCase, runCase } from '../../sdk/self-test.ts'
import type { Target } from '../../sdk/target.ts'

/** Every op case on a target, beside the op's reference: what is wrong. */
export async function failingCases(target: Target): Promise<string[]> {
  const wrong: string[] = []
  for (const spec of Object.values(ops))
    for (const c of spec.cases) {
      const filled = fillCase(spec, c)
      const problem = await runCase(target, spec, c, filled).then(
        (got) => difference(got, expectedOf(spec, c, filled), c.tolerance?.value),
        (error: Error) => error.message,
      )
      if (problem !== null) wrong.push(`${spec.name}, ${c.name}: ${problem}`)
    }
  return wrong
}
