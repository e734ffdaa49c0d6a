import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import type { ColumnNames } from '../../data/columns.ts'
import { type Example, tokenizeRows } from '../../data/tokenize.ts'
import { DataError } from '../../errors.ts'
import type { LanguageModel } from '../../generate/language-model.ts'
import { scoreExamples } from '../../generate/score.ts'
import { UsageError } from '../errors.ts'
import { interruptible } from '../interrupt.ts'
import { withModel } from '../open-model.ts'
import { addColumns, addJson, addModel, type JsonFlag, type ModelFlags } from '../options.ts'
import { formatNumber, log, print, printJson } from '../output.ts'
import { Progress } from '../progress.ts'

interface Flags extends JsonFlag, ModelFlags {
  readonly text?: string
  readonly file?: string
  readonly data?: string
  readonly columns?: ColumnNames
}

export function addScore(program: Command): void {
  const command = program
    .command('score')
    .description("log-probabilities and perplexity of a text, or of a dataset's completions")
  addModel(command)
    .option('--text <text>', 'a text; its first token has nothing before it and is not scored')
    .option('--file <path>', 'a file with a text')
    .option('--data <file>', 'rows (.jsonl, .json): their completions, or assistant turns, are scored')
  addJson(addColumns(command)).action(async (flags: Flags) => {
    if ([flags.text, flags.file, flags.data].filter((given) => given !== undefined).length !== 1)
      throw new UsageError("one of '--text', '--file' and '--data' is needed")
    await interruptible((signal) =>
      withModel(flags, signal, async (lm) => {
        const examples = await readExamples(lm, flags, signal)
        const rows = await scoreAll(lm, examples, signal)
        const all = rows.flat()
        const meanLogProb = all.reduce((a, b) => a + b, 0) / all.length
        const perplexity = Math.exp(-meanLogProb)
        // A list for a text, a list of lists for rows.
        const tokenLogProbs = flags.data === undefined ? all : rows
        if (flags.json) return printJson({ tokens: all.length, meanLogProb, perplexity, tokenLogProbs })
        print(`tokens                ${all.length}`)
        print(`mean log-probability  ${meanLogProb.toFixed(6)}`)
        print(`perplexity            ${perplexity.toPrecision(6)}`)
      }),
    )
  })
}

async function readExamples(
  lm: LanguageModel,
  { text, file, data, columns }: Flags,
  signal: AbortSignal,
): Promise<Example[]> {
  if (data === undefined) {
    const inputIds = lm.encodePrompt(text ?? (await readFile(file!, 'utf8')))
    if (inputIds.length < 2) throw new DataError(`${file ?? 'text'}: it has fewer than two tokens, so none is scored`)
    return [{ inputIds, labels: inputIds, row: 0 }]
  }
  const options = { columns, maxLength: null, warn: (message: string) => log(`warning: ${message}`) }
  const examples: Example[] = []
  const reading = new Progress('reading')
  try {
    for await (const example of tokenizeRows(data, lm.tokenizer, lm.chatTemplate, options)) {
      signal.throwIfAborted()
      reading.count(examples.push(example), 'rows')
    }
  } finally {
    reading.end()
  }
  if (examples.length === 0) throw new DataError(`${data}: no rows`)
  return examples
}

async function scoreAll(lm: LanguageModel, examples: readonly Example[], signal: AbortSignal): Promise<number[][]> {
  const progress = new Progress('scoring')
  const start = performance.now()
  let [done, tokens] = [0, 0]
  const onProgress = (rows: number) => {
    while (done < rows) tokens += examples[done++].inputIds.length
    const rate = formatNumber((1000 * tokens) / (performance.now() - start))
    progress.update(done, examples.length, `${done}/${examples.length} rows | ${rate} tokens/s`)
  }
  const rows = await scoreExamples(lm.model, examples, { signal, onProgress }).finally(() => progress.end())
  return rows.map((logProbs) => [...logProbs])
}
