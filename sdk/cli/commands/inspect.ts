import { styleText } from 'node:util'
import type { Command } from 'commander'
import { notScored } from '../../data/pack.ts'
import { type Survey, surveyRows } from '../../data/survey.ts'
import type { Example } from '../../data/tokenize.ts'
import { openModelSource } from '../../formats/model-source.ts'
import { findModel } from '../../hub/models.ts'
import { parseConfig } from '../../model/config.ts'
import { loadChatTemplate } from '../../text/chat-template.ts'
import { loadTokenizer, type Tokenizer } from '../../text/tokenizer.ts'
import { rowDefaults } from '../../train/rows.ts'
import { UsageError } from '../errors.ts'
import { interruptible } from '../interrupt.ts'
import { addJson, integer } from '../options.ts'
import { formatNumber, print, printJson } from '../output.ts'
import { Progress } from '../progress.ts'
import { addFlags, readSettings } from '../settings.ts'
import { sftDefaults } from '../sft-defaults.ts'
import { aliases, sftKeys } from '../sft-keys.ts'

const { maxLength, truncationMode, packing, completionOnlyLoss, assistantOnlyLoss, columns, model, data } = sftKeys
/** What of a training run decides how rows look. */
const inspected = { model, data, maxLength, truncationMode, packing, completionOnlyLoss, assistantOnlyLoss, columns }

export function addInspect(program: Command): void {
  const command = program
    .command('inspect')
    .description('what training would see of rows: tokens, what is scored, lengths, warnings; no model is loaded')
  addFlags(command, inspected, sftDefaults)
  command.addOption(integer('--rows <n>', 'rows to show', 0).default(3))
  addJson(command).action(async (flags: Record<string, unknown> & { rows: number; json?: boolean }) => {
    const settings = readSettings(flags, sftKeys, aliases)
    const { data } = settings
    if (data === undefined) throw new UsageError("'--data' is missing (or data in the --config file)")
    await interruptible(async (signal) => {
      const source = await openModelSource(await findModel(settings.model, { signal }))
      await source.close()
      const tokenizer = loadTokenizer(source.tokenizerJson, source.tokenizerConfig)
      const template = loadChatTemplate(source.tokenizerConfig, source.chatTemplate ?? undefined)
      // As the trainer: no row is longer than the model reads.
      const { maxPositionEmbeddings } = parseConfig(source.config, source.configFile)
      const maxLength = Math.min(settings.maxLength ?? rowDefaults.maxLength, maxPositionEmbeddings)
      const progress = new Progress('reading')
      const { truncationMode, packing, completionOnlyLoss, assistantOnlyLoss, columns } = settings
      const survey = await surveyRows(data, tokenizer, template, flags.rows, {
        maxLength,
        truncationMode,
        packing,
        completionOnlyLoss,
        assistantOnlyLoss,
        columns,
        onProgress: (rows) => progress.count(rows, 'rows'),
        signal,
      }).finally(() => progress.end())
      if (flags.json) return printJson(asJson(survey))
      printSurvey(survey, tokenizer, maxLength, truncationMode ?? rowDefaults.truncationMode)
    })
  })
}

/** The first reasons, and how many more there are. */
const listed = (reasons: readonly string[], all: number): string =>
  [...reasons, ...(all > reasons.length ? [`... and ${formatNumber(all - reasons.length)} more`] : [])].join('\n  ')

const quantile = (sorted: readonly number[], share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0

function lengthsOf({ lengths }: Survey) {
  const sorted = lengths.toSorted((a, b) => a - b)
  const at = (share: number) => quantile(sorted, share)
  return { min: at(0), median: at(0.5), p90: at(0.9), max: at(1) }
}

function asJson(survey: Survey): object {
  const { lengths: _, ...rest } = survey
  return { ...rest, lengths: lengthsOf(survey) }
}

function printSurvey(survey: Survey, tokenizer: Tokenizer, maxLength: number, truncationMode: string): void {
  for (const example of survey.examples) {
    const scored = example.labels.filter((label, t) => t > 0 && label !== notScored).length
    print(bold(`row ${example.row}: ${example.inputIds.length} tokens, ${scored} scored`))
    print(`${coloured(example, tokenizer)}\n`)
  }
  const { rows, kinds, refused, refusals, tooLong, tokens, scoredTokens, packed, warnings } = survey
  const count = (n: number, what: string) => `${formatNumber(n)} ${what}${n === 1 ? '' : 's'}`
  const told = Object.entries(kinds).map(([kind, n]) => `${kind} ${formatNumber(n)}`)
  print(`${count(rows, 'row')} (${told.join(', ')}), ${count(tokens, 'token')}`)
  print(`scored: ${formatNumber(scoredTokens)}, ${((100 * scoredTokens) / Math.max(1, tokens)).toFixed(0)}% of them`)
  const { min, median, p90, max } = lengthsOf(survey)
  print(`tokens a row: ${min} to ${max}, half of them up to ${median}, nine of ten up to ${p90}`)
  if (survey.lengths.length > 1) print(histogram(survey.lengths))
  if (packed)
    print(`packed: ${count(packed.bins, 'sequence')} of ${maxLength}, ${(100 * packed.fill).toFixed(0)}% filled`)
  const fate = { keep_start: 'they lose their end', skip: 'they are left out', error: 'training refuses them' }
  if (tooLong > 0)
    print(warned(`${count(tooLong, 'row')} longer than maxLength ${maxLength}: ${fate[truncationMode as 'skip']}`))
  if (refused > 0)
    print(
      warned(
        `${count(refused, 'row')} cannot be used, and training stops at the first:\n  ${listed(refusals, refused)}`,
      ),
    )
  for (const warning of warnings) print(warned(warning))
}

/** Colours are for a terminal, unless NO_COLOR says otherwise. */
const inColour = (): boolean => process.stdout.isTTY && process.stdout.hasColors()
const bold = (text: string): string => (inColour() ? styleText('bold', text) : text)
const warned = (text: string): string => (inColour() ? styleText('yellow', `warning: ${text}`) : `warning: ${text}`)

/** The row's text: scored tokens green, the others grey; without colours scored ones in [[...]]. */
function coloured({ inputIds, labels }: Example, tokenizer: Tokenizer): string {
  const spans: { scored: boolean; ids: number[] }[] = []
  for (const [t, id] of inputIds.entries()) {
    const scored = t > 0 && labels[t] !== notScored
    if (spans.at(-1)?.scored === scored) spans.at(-1)!.ids.push(id)
    else spans.push({ scored, ids: [id] })
  }
  return spans
    .map(({ scored, ids }) => {
      const text = tokenizer.decode(ids)
      if (!inColour()) return scored ? `[[${text}]]` : text
      return styleText(scored ? 'green' : 'gray', text)
    })
    .join('')
}

/** How many rows have which length, as bars. */
function histogram(lengths: readonly number[], bars = 10, width = 40): string {
  const { min, max } = lengths.reduce((r, n) => ({ min: Math.min(r.min, n), max: Math.max(r.max, n) }), {
    min: Number.POSITIVE_INFINITY,
    max: 0,
  })
  const step = Math.ceil((max - min + 1) / bars)
  const counts = new Array<number>(Math.ceil((max - min + 1) / step)).fill(0)
  for (const length of lengths) counts[Math.floor((length - min) / step)]++
  const most = Math.max(...counts)
  const digits = String(max).length
  return counts
    .map((n, i) => {
      const range = `${String(min + i * step).padStart(digits)}-${String(Math.min(max, min + (i + 1) * step - 1)).padEnd(digits)}`
      const eighths = Math.round((8 * width * n) / most)
      const bar = '█'.repeat(eighths >> 3) + (eighths & 7 ? '▏▎▍▌▋▊▉'[(eighths & 7) - 1] : '')
      return `  ${range} ${bar || (n > 0 ? '▏' : '')} ${formatNumber(n)}`
    })
    .join('\n')
}
