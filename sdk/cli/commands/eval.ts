import type { Command } from 'commander'
import { type ColumnNames, readContent } from '../../data/columns.ts'
import { readRows } from '../../data/rows.ts'
import { DataError } from '../../errors.ts'
import { evaluateExactMatch, type Question } from '../../eval/exact-match.ts'
import { interruptible } from '../interrupt.ts'
import { withModel } from '../open-model.ts'
import {
  addColumns,
  addJson,
  addModel,
  addSampling,
  integer,
  type JsonFlag,
  type ModelFlags,
  type SamplingFlags,
  samplingOf,
} from '../options.ts'
import { formatNumber, print, printJson } from '../output.ts'
import { Progress } from '../progress.ts'

interface Flags extends JsonFlag, ModelFlags, SamplingFlags {
  readonly data: string
  readonly columns?: ColumnNames
  readonly system?: string
  readonly batchSize?: number
  readonly limit?: number
}

export function addEval(program: Command): void {
  const command = program
    .command('eval')
    .description('exact-match accuracy over rows with question and answer; greedy unless --temperature says otherwise')
  addModel(command)
    .requiredOption('--data <file>', 'rows (.jsonl, .json) with question and answer')
    .option('--system <text>', 'system message')
    .addOption(integer('--batch-size <n>', 'questions answered side by side (default: 16)', 1))
    .addOption(integer('--limit <n>', 'only the first n rows', 1))
  addJson(addSampling(addColumns(command))).action(async (flags: Flags) => {
    const questions = await readQuestions(flags)
    await interruptible((signal) =>
      withModel(flags, signal, async (lm) => {
        const { system, batchSize } = flags
        const progress = new Progress('evaluating')
        const start = performance.now()
        const options = { ...samplingOf(flags), system, slots: batchSize, signal }
        const result = await evaluateExactMatch(lm, questions, options, ({ done, correct, tokens }) => {
          const rate = formatNumber((1000 * tokens) / (performance.now() - start))
          const right = `${correct}/${done} right`
          progress.update(done, questions.length, `${right} | ${done}/${questions.length} rows | ${rate} tokens/s`)
        }).finally(() => progress.end())
        const { n, correct, accuracy, standardError } = result
        if (flags.json) return printJson({ n, correct, accuracy, standardError })
        print(`${(100 * accuracy).toFixed(1)}% ± ${(100 * standardError).toFixed(1)} (${correct} of ${n} right)`)
      }),
    )
  })
}

async function readQuestions({ data, columns, limit = Number.POSITIVE_INFINITY }: Flags): Promise<Question[]> {
  const questions: Question[] = []
  const reading = new Progress('reading')
  try {
    for await (const row of readRows(data)) {
      if (questions.length === limit) break
      // Naming these columns leaves readContent no other kind of row to choose.
      const content = readContent(row, { question: 'question', answer: 'answer', ...columns })
      if (content.kind !== 'question') throw new DataError(`${row.place}: it has no question and answer`)
      reading.count(questions.push(content), 'rows')
    }
  } finally {
    reading.end()
  }
  if (questions.length === 0) throw new DataError(`${data}: no rows`)
  return questions
}
