import { evaluateExactMatch, type LanguageModel } from '../../sdk/index.ts'
import type { Problem } from './problems.ts'

/** Share of problems answered right, greedily. */
export async function accuracy(model: LanguageModel, problems: readonly Problem[]): Promise<number> {
  const result = await evaluateExactMatch(model, problems)
  return result.accuracy
}
