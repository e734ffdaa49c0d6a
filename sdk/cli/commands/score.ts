import { readFile } from 'node:fs/promises'
import { type Command, Option } from 'commander'
import type { ColumnNames } from '../../data/columns.ts'
import { type Example, tokenizeRows } from '../../data/tokenize.ts'
import { DataError } from '../../errors.ts'
import { estimate, perplexityChange } from '../../eval/statistics.ts'
import type { LanguageModel } from '../../generate/language-model.ts'
import { type ScoreOptions, scoreExamples, textWindows } from '../../generate/score.ts'
import { UsageError } from '../errors.ts'
import { interruptible } from '../interrupt.ts'
import { withModel } from '../open-model.ts'
import { addColumns, addJson, addModel, integer, type JsonFlag, type ModelFlags } from '../options.ts'
import { formatNumber, formatRate, log, print, printJson } from '../output.ts'
import { Progress } from '../progress.ts'

interface Flags extends JsonFlag, ModelFlags {
  readonly text?: string
  readonly file?: string
  readonly data?: string
  readonly columns?: ColumnNames
  readonly window?: number
  readonly maxTokens?: number
  readonly against?: string
  readonly activations?: ScoreOptions['activations']
}

export function addScore(program: Command): void {
  const command = program
    .command('score')
    .description("log-probabilities and perplexity of a text, or of a dataset's completions")
  addModel(command)
    .option('--text <text>', 'a text; its first token has nothing before it and is not scored')
    .option('--file <path>', 'a file with a text')
    .option(
      '--data <file>',
      'a text (.txt), or rows (.jsonl, .json): their completions, or assistant turns, are scored',
    )
    .addOption(integer('--window <n>', 'a text is scored in windows of so many tokens (default: 512)', 2))
    .addOption(integer('--max-tokens <n>', 'only the first n tokens of a text', 2))
    .addOption(
      new Option(
        '--activations <type>',
        'of products with quantized weights (default: f32; int8: as answers have them)',
      ).choices(['f32', 'int8']),
    )
    .option('--against <model>', 'another model, scored on the same tokens without the adapter')
  addJson(addColumns(command)).action(async (flags: Flags) => {
    if ([flags.text, flags.file, flags.data].filter((given) => given !== undefined).length !== 1)
      throw new UsageError("one of '--text', '--file' and '--data' is needed")
    if (!isText(flags) && (flags.window ?? flags.maxTokens) !== undefined)
      throw new UsageError("'--window' and '--max-tokens' are for a text: rows are scored whole")
    const { model = 'nano', against, json } = flags
    await interruptible(async (signal) => {
      const one = await score(flags, signal)
      if (against === undefined) return json ? printJson(one.result) : printResult(one.result)
      const other = await score({ ...flags, model: against, adapter: undefined }, signal)
      if (String(one.ids) !== String(other.ids))
        throw new DataError(
          `${against}: reads this as other tokens than ${model}: their perplexities cannot be compared`,
        )
      const { mean: percent, standardError } = perplexityChange(one.rows, other.rows)
      if (json)
        return printJson({ ...one.result, against: { model: against, ...other.result, percent, standardError } })
      printResult(one.result)
      print(`\n${against}`)
      printResult(other.result)
      print(`change of perplexity  ${percent.toFixed(3)}% (standard error ${standardError.toFixed(3)}%)`)
    })
  })
}

const isText = ({ data }: Flags): boolean => data === undefined || /\.txt$/i.test(data)

/** With the ids and log-probabilities of each window or row. */
const score = (flags: Flags, signal: AbortSignal) =>
  withModel({ ...flags, workload: 'prefill' }, signal, async (lm) => {
    const examples = await readExamples(lm, flags, signal)
    const start = performance.now()
    const rows = await scoreAll(lm, examples, flags, signal)
    const tokens = examples.reduce((sum, { inputIds }) => sum + inputIds.length, 0)
    const tokensPerSecond = (1000 * tokens) / (performance.now() - start)
    const all = rows.flat()
    const meanLogProb = estimate(all).mean
    const result = {
      tokens: all.length,
      meanLogProb,
      perplexity: Math.exp(-meanLogProb),
      tokensPerSecond,
      windows: rows.map((own) => ({ tokens: own.length, meanLogProb: estimate(own).mean })),
      // A list for a text, a list of lists for rows.
      tokenLogProbs: isText(flags) ? all : rows,
    }
    return { result, rows, ids: examples.map(({ inputIds }) => inputIds) }
  })

type Result = Awaited<ReturnType<typeof score>>['result']

function printResult({ tokens, meanLogProb, perplexity, tokensPerSecond }: Result): void {
  print(`tokens                ${tokens}, ${formatRate(tokensPerSecond)}`)
  print(`mean log-probability  ${meanLogProb.toFixed(6)}`)
  print(`perplexity            ${perplexity.toPrecision(6)}`)
}

async function readExamples(lm: LanguageModel, flags: Flags, signal: AbortSignal): Promise<Example[]> {
  const { text, file, data, columns, window, maxTokens } = flags
  if (isText(flags)) {
    const path = file ?? data
    const whole = text ?? (await readFile(path!, 'utf8'))
    const windows = textWindows(lm.tokenizer, whole, window, maxTokens)
    if (windows.length === 0) throw new DataError(`${path ?? 'text'}: it has fewer than two tokens, so none is scored`)
    return windows
  }
  const options = { columns, maxLength: null, warn: (message: string) => log(`warning: ${message}`) }
  const examples: Example[] = []
  const reading = new Progress('reading')
  try {
    for await (const example of tokenizeRows(data!, lm.tokenizer, lm.chatTemplate, options)) {
      signal.throwIfAborted()
      reading.count(examples.push(example), 'rows')
    }
  } finally {
    reading.end()
  }
  if (examples.length === 0) throw new DataError(`${data}: no rows`)
  return examples
}

async function scoreAll(
  lm: LanguageModel,
  examples: readonly Example[],
  { activations }: Pick<Flags, 'activations'>,
  signal: AbortSignal,
): Promise<number[][]> {
  const progress = new Progress('scoring')
  const start = performance.now()
  let [done, tokens] = [0, 0]
  const onProgress = (rows: number) => {
    while (done < rows) tokens += examples[done++].inputIds.length
    const rate = formatNumber((1000 * tokens) / (performance.now() - start))
    progress.update(done, examples.length, `${done}/${examples.length} | ${rate} tokens/s`)
  }
  const rows = await scoreExamples(lm.model, examples, { activations, signal, onProgress }).finally(() =>
    progress.end(),
  )
  return rows.map((logProbs) => [...logProbs])
}
