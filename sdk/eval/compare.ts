import { OptionError } from '../errors.ts'
import { differingKeys } from '../same-settings.ts'
import { type Source, storeAt } from '../store/store.ts'
import { groupsOf, resultsOf } from './results.ts'
import { type AnsweredItem, type EvalSettings, readFinished } from './run-folder.ts'
import { type Estimate, estimate, mcNemar } from './statistics.ts'

/** Two evaluations of the same questions, question by question. */
export interface Comparison {
  readonly n: number
  readonly a: Estimate
  readonly b: Estimate
  /** Of b over a, with the error of a paired difference. */
  readonly difference: Estimate
  /** Rows that b answers better than a, and worse; with several samples, more often and less often right. */
  readonly better: readonly number[]
  readonly worse: readonly number[]
  /** McNemar's exact test; with several samples the sign test, which it then becomes. */
  readonly pValue: number
  /** Settings that are not the same. */
  readonly settings: readonly (keyof EvalSettings)[]
}

/**
 * Compares two output folders of evaluations.
 *
 * @throws OptionError for folders without a finished run, or with other questions: named is what differs first
 */
export async function compareRuns(folderA: string | Source, folderB: string | Source): Promise<Comparison> {
  const [placeA, placeB] = [await storeAt(folderA), await storeAt(folderB)]
  const [a, b] = [await readFinished(placeA), await readFinished(placeB)]
  for (const key of ['task', 'rows'] as const)
    if (a.settings[key] !== b.settings[key])
      throw new OptionError(
        `${placeB.name}: ${key} is ${b.settings[key]}, and in ${placeA.name} ${a.settings[key]}: only runs over the same questions can be compared`,
      )
  if (a.settings.rowsHash !== b.settings.rowsHash)
    throw new OptionError(`${placeB.name}: ${firstOther(a.items, b.items)} is another one than in ${placeA.name}`)
  const [sharesA, sharesB] = [sharesOf(a), sharesOf(b)]
  const differences = sharesB.map((share, i) => share - sharesA[i])
  const rowsWhere = (is: (d: number) => boolean) => differences.flatMap((d, row) => (is(d) ? [row] : []))
  const [better, worse] = [rowsWhere((d) => d > 0), rowsWhere((d) => d < 0)]
  const accuracy = ({ settings, items }: FinishedRun): Estimate => {
    const { accuracy: mean, standardError } = resultsOf(settings, items)
    return { mean, standardError }
  }
  return {
    n: a.settings.rows,
    a: accuracy(a),
    b: accuracy(b),
    difference: estimate(differences),
    better,
    worse,
    pValue: mcNemar(better.length, worse.length),
    settings: differingKeys(b.settings, a.settings),
  }
}

type FinishedRun = Awaited<ReturnType<typeof readFinished>>

/** How often each question was answered rightly. */
const sharesOf = ({ settings, items }: FinishedRun): number[] =>
  groupsOf(items, settings.rows).map((group) => group.filter((item) => item.correct).length / settings.numSamples)

function firstOther(a: readonly AnsweredItem[], b: readonly AnsweredItem[]): string {
  const golds = new Map(a.map((item) => [item.index, item]))
  for (const { index, question, gold } of b) {
    const other = golds.get(index)!
    if (other.question !== question) return `the question of row ${index}`
    if (other.gold !== gold) return `the right answer of row ${index}`
  }
  return 'the solution of some row'
}
