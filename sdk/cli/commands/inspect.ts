import { styleText } from 'node:util'
import { type Command, Option } from 'commander'
import { notScored } from '../../data/pack.ts'
import { type Survey, surveyRows } from '../../data/survey.ts'
import type { Example } from '../../data/tokenize.ts'
import { deviceNames, openTarget } from '../../device.ts'
import { openModel } from '../../formats/stored-model.ts'
import { resolveModel } from '../../hub/models.ts'
import type { PullOptions } from '../../hub/snapshot.ts'
import { describeModel } from '../../load.ts'
import { parseConfig } from '../../model/config.ts'
import { fillOptions } from '../../option-table.ts'
import { loadChatTemplate } from '../../text/chat-template.ts'
import { loadTokenizer, type Tokenizer } from '../../text/tokenizer.ts'
import { rowConfig, sftConfig } from '../../train/config.ts'
import { adapterText, modelText, withSpeeds } from '../describe.ts'
import { UsageError } from '../errors.ts'
import { interruptible } from '../interrupt.ts'
import { aliases, sftKeys } from '../keys.ts'
import { addJson, addThreads, type DeviceFlags, integer, type JsonFlag } from '../options.ts'
import { formatNumber, print, printJson } from '../output.ts'
import { Progress } from '../progress.ts'
import { addFlags, readSettings } from '../settings.ts'
import { only } from '../train.ts'

interface Flags extends JsonFlag, DeviceFlags, Readonly<Record<string, unknown>> {
  readonly rows: number
}

/** What of a training run decides how rows look. */
const looks = { ...rowConfig, packing: sftConfig.packing }

export function addInspect(program: Command): void {
  const command = program
    .command('inspect [model]')
    .description(
      'what a model or an adapter is: types, memory, speed here; with --data what training would see of rows: tokens, what is scored, lengths, warnings',
    )
  addFlags(command, { model: sftKeys.model, data: sftKeys.data, ...looks })
  command.addOption(new Option('--device <name>', 'whose speed is told').choices(deviceNames))
  addThreads(command)
  command.addOption(integer('--rows <n>', 'rows to show', 0).default(3))
  addJson(command).action(async (named: string | undefined, flags: Flags) => {
    const settings = readSettings(named === undefined ? flags : { ...flags, model: named }, sftKeys, aliases)
    const { data } = settings
    if (data === undefined && settings.model !== undefined) return inspectModel(settings.model, flags)
    if (data === undefined) throw new UsageError("a model's name or '--data' is missing (or data in the --config file)")
    const row = fillOptions(looks, only(settings, looks), 'rows')
    await interruptible(async (signal) => {
      const stored = await openModel(await resolveModel(settings.model, { signal }))
      const tokenizer = loadTokenizer(stored.tokenizerJson, stored.tokenizerConfig)
      const template = loadChatTemplate(stored.tokenizerConfig, stored.chatTemplate ?? undefined)
      // As the trainer: no row is longer than the model reads.
      const { maxPositionEmbeddings } = parseConfig(stored.config, stored.configFile)
      const maxLength = Math.min(row.maxLength, maxPositionEmbeddings)
      const progress = new Progress('reading')
      const survey = await surveyRows(data, tokenizer, template, flags.rows, {
        ...row,
        maxLength,
        onProgress: (rows) => progress.count(rows, 'rows'),
        signal,
      }).finally(() => progress.end())
      if (flags.json) return printJson(asJson(survey))
      printSurvey(survey, tokenizer, maxLength, row.truncationMode)
    })
  })
}

async function inspectModel(name: string, { device, threads, build, json }: Flags): Promise<void> {
  await interruptible(async (signal) => {
    const pulling = new Progress('pulling')
    const onProgress: PullOptions['onProgress'] = ({ loadedBytes, totalBytes }) =>
      pulling.update(loadedBytes, totalBytes)
    const description = await describeModel(name, { onProgress, signal }).finally(() => pulling.end())
    if (description.kind === 'adapter') return json ? printJson(description) : print(adapterText(description))
    const target = await openTarget({ device, threads, build })
    try {
      const whole = await withSpeeds(description, target)
      if (json) printJson(whole)
      else print(modelText(whole))
    } finally {
      await target.close()
    }
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
