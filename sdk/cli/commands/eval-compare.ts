import type { Command } from 'commander'
import { type Comparison, compareRuns } from '../../eval/compare.ts'
import { withError } from '../../eval/report.ts'
import { addJson, type JsonFlag } from '../options.ts'
import { print, printJson } from '../output.ts'

export function addEvalCompare(program: Command): void {
  const command = program
    .command('eval-compare')
    .description('two evaluations of the same questions, question by question')
    .argument('<a>', 'the --output of one halfling eval')
    .argument('<b>', 'and of another')
  addJson(command).action(async (a: string, b: string, { json }: JsonFlag) => {
    const comparison = await compareRuns(a, b)
    if (json) return printJson(comparison)
    for (const line of describe(a, b, comparison)) print(line)
  })
}

function describe(a: string, b: string, comparison: Comparison): string[] {
  const { n, difference, better, worse, pValue, settings } = comparison
  const { mean, standardError } = difference
  const width = Math.max(a.length, b.length, 'difference'.length)
  const sign = mean < 0 ? '' : '+'
  const line = (name: string, value: string) => `${name.padEnd(width)}  ${value}`
  return [
    line(a, withError(comparison.a)),
    line(b, withError(comparison.b)),
    line('difference', `${sign}${(100 * mean).toFixed(1)} ± ${(100 * standardError).toFixed(1)} points, paired`),
    line('p', `${pValue.toPrecision(2)} (McNemar): ${better.length} of ${n} rows better, ${worse.length} worse`),
    line('better', rowList(better)),
    line('worse', rowList(worse)),
    line('differ in', settings.join(', ') || 'nothing'),
  ]
}

const rowList = (rows: readonly number[]): string =>
  rows.length === 0 ? '-' : `rows ${rows.slice(0, 20).join(', ')}${rows.length > 20 ? ', ...' : ''}`
