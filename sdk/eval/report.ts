import type { EvalResults } from './results.ts'
import type { AnsweredItem } from './run-folder.ts'
import type { Estimate } from './statistics.ts'

const shown = 4
const mostCharacters = 1500

const percent = (share: number): string => `${(100 * share).toFixed(1)}%`
/** `34.0% ± 3.3` */
export const withError = ({ mean, standardError }: Estimate): string =>
  `${percent(mean)} ± ${(100 * standardError).toFixed(1)}`

/** The numbers of an evaluation as [name, value], for people. */
export function resultLines(results: EvalResults): [string, string][] {
  const { n, correct, accuracy, standardError, majority, passAt, truncated, notExtractable, meanTokens } = results
  const { numSamples } = results.settings
  const answers = numSamples > 1 ? `${correct} of ${n * numSamples} answers to ${n} questions` : `${correct} of ${n}`
  return [
    [numSamples > 1 ? 'pass@1' : 'accuracy', `${withError({ mean: accuracy, standardError })} (${answers} right)`],
    ...(majority ? ([[`maj@${numSamples}`, withError(majority)]] as [string, string][]) : []),
    ...Object.entries(passAt ?? {})
      .filter(([k]) => k !== '1')
      .map(([k, pass]): [string, string] => [`pass@${k}`, withError(pass)]),
    ['cut off', `${percent(truncated)} of the answers`],
    ['no answer found', `in ${percent(notExtractable)} of them`],
    ['mean length', `${meanTokens.toFixed(1)} tokens`],
  ]
}

/** The numbers, the settings, and a few right and wrong answers. */
export function reportOf(results: EvalResults, items: readonly AnsweredItem[]): string {
  const { settings } = results
  const settingLines = Object.entries(settings).map(([name, value]): [string, string] => [name, JSON.stringify(value)])
  const ordered = [...items].sort((a, b) => a.sample - b.sample || a.index - b.index)
  const some = (correct: boolean) =>
    ordered
      .filter((item) => item.correct === correct)
      .slice(0, shown)
      .sort((a, b) => a.index - b.index)
  return [
    `# ${settings.task ?? 'Evaluation'}: ${withError({ mean: results.accuracy, standardError: results.standardError })}`,
    table(resultLines(results)),
    '## Settings',
    table(settingLines),
    '## Some that are right',
    ...some(true).map(itemText),
    '## Some that are wrong',
    ...some(false).map(itemText),
    '',
  ].join('\n\n')
}

const table = (rows: readonly (readonly [string, string])[]): string =>
  ['| | |', '|---|---|', ...rows.map((cells) => `| ${cells.map(cell).join(' | ')} |`)].join('\n')

const cell = (text: string): string => text.replaceAll('|', '\\|')

function itemText({ index, question, gold, answer, text, finishReason }: AnsweredItem): string {
  const end = finishReason === 'length' ? ' (cut off)' : ''
  const found = answer === null ? 'none was found' : oneLine(answer)
  return [
    `### Row ${index}`,
    indented(question),
    `Right: ${oneLine(gold)}. The model's answer: ${found}. What it wrote${end}:`,
    indented(text),
  ].join('\n\n')
}

const oneLine = (text: string): string => `\`${text.replace(/\s+/g, ' ').replaceAll('`', "'").slice(0, 200)}\``

/** As code: whatever stands in it. */
function indented(text: string): string {
  const cut = text.length > mostCharacters ? `${text.slice(0, mostCharacters)} [...]` : text
  return cut
    .trim()
    .split('\n')
    .map((line) => `    ${line}`)
    .join('\n')
}
