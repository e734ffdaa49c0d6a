import type { LanguageModel } from '../../sdk/index.ts'

/** The model that is loaded. For the console, and for tests, it is `halfling.model`. */
export const current: { model: LanguageModel | null } = { model: null }
Object.assign(globalThis, { halfling: current })

export function loaded(): LanguageModel {
  if (current.model === null) throw new Error('No model is loaded: load one first')
  return current.model
}

/** Numbers in all its weights. */
export const parametersOf = ({ model }: LanguageModel): number =>
  [...model.weights.values()].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)

/** The adapters that are loaded. */
export const adaptersOf = ({ model }: LanguageModel): { name: string; active: boolean; rank: number }[] =>
  [...model.adapters].map(([name, { config }]) => ({
    name,
    active: model.activeAdapters.includes(name),
    rank: config.r,
  }))
