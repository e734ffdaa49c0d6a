import { type Command, Option } from 'commander'
import { type GraderName, graders } from '../../answers/graders.ts'
import type { ColumnNames } from '../../data/columns.ts'
import { DataError } from '../../errors.ts'
import { evaluate } from '../../eval/evaluate.ts'
import type { Question } from '../../eval/prompts.ts'
import { resultLines, withError } from '../../eval/report.ts'
import type { EvalResults } from '../../eval/results.ts'
import { readQuestions, readTask, type TaskName, taskNames, tasks } from '../../eval/tasks.ts'
import { Interrupted, UsageError } from '../errors.ts'
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
import { formatNumber, log, print, printJson } from '../output.ts'
import { Progress } from '../progress.ts'
import { addEvalCompare } from './eval-compare.ts'

interface Flags extends JsonFlag, ModelFlags, SamplingFlags {
  readonly task?: TaskName
  readonly data?: string
  readonly columns?: ColumnNames
  readonly template?: string
  readonly system?: string
  readonly grader?: GraderName
  readonly numSamples?: number
  readonly batchSize?: number
  readonly limit?: number
  readonly output?: string
}

export function addEval(program: Command): void {
  const command = program
    .command('eval')
    .description(
      'accuracy on a test set, or on rows with question and answer; greedy unless --temperature says otherwise',
    )
  addModel(command)
    .addOption(new Option('--task <name>', 'a test set').choices(taskNames))
    .option(
      '--data <file>',
      'rows (.jsonl, .json, .parquet) or a dataset of the hub; with --task its file, or a folder of it',
    )
    .option('--template <name>', 'chat, lighteval, or a text with {question} in it (default: chat)')
    .option('--system <text>', 'system message')
    .addOption(
      new Option(
        '--grader <name>',
        'math: by value; exact: as written (default: math with --task, else exact)',
      ).choices(Object.keys(graders)),
    )
    .addOption(integer('--num-samples <n>', 'answers to each question, with --temperature (default: 1)', 1))
    .addOption(integer('--batch-size <n>', 'answers written side by side (default: 16)', 1))
    .addOption(integer('--limit <n>', 'only the first n rows', 1))
    .option('--output <folder>', 'keeps answers and results there; run again, it goes on')
  addJson(addSampling(addColumns(command), "the task's, else 256")).action(runEval)
  redescribe(command, '--seed', 'of the sampler (default: 0)')
  redescribe(
    command,
    '--max-new-tokens',
    "at most so many tokens (default: the task's 512 or 2048, else the model's or 256)",
  )
  addEvalCompare(program)
}

/** Defaults that are not those of other commands. */
function redescribe(command: Command, flag: string, description: string): void {
  command.options.find(({ long }) => long === flag)!.description = description
}

async function runEval(flags: Flags): Promise<void> {
  const { task, model = 'nano', adapter = [], dtype = 'auto', template, system, numSamples, output, batchSize } = flags
  const questions = await questionsOf(flags)
  const { items: _, ...results } = await interruptible((signal) =>
    withModel(flags, signal, async (lm) => {
      const progress = new Progress('evaluating')
      const start = performance.now()
      return await evaluate(lm, questions, {
        ...samplingOf(flags),
        maxNewTokens: flags.maxNewTokens ?? (task && tasks[task].maxNewTokens),
        subject: { task: task ?? null, model, adapters: [adapter].flat(), dtype },
        template,
        system,
        grader: flags.grader ?? (task ? 'math' : 'exact'),
        numSamples,
        output,
        slots: batchSize,
        signal,
        onProgress: ({ done, total, before, correct, tokens }) => {
          const rate = formatNumber((1000 * tokens) / (performance.now() - start))
          const right = `${correct}/${done} right (${((100 * correct) / done).toFixed(1)}%)`
          progress.update(done, total, `${right} | ${done}/${total} | ${rate} tokens/s`, before)
        },
      }).finally(() => progress.end())
    }),
  ).catch((error) => {
    if (output === undefined || !(error instanceof Interrupted)) throw error
    throw new Interrupted(`interrupted; the same command goes on in ${output}`)
  })
  if (flags.json) printJson(output === undefined ? numbersOf(results) : { ...results, output })
  else show(results, output)
}

function show(results: EvalResults, output: string | undefined): void {
  const { n, correct, accuracy, standardError, truncated } = results
  if (results.settings.numSamples > 1)
    for (const [name, value] of resultLines(results)) print(`${name.padEnd(16)} ${value}`)
  else print(`${withError({ mean: accuracy, standardError })} (${correct} of ${n} right)`)
  if (truncated > 0.02)
    log(
      `${(100 * truncated).toFixed(0)}% of the answers were cut off at ${results.settings.maxNewTokens} tokens: --max-new-tokens gives them more`,
    )
  if (output !== undefined) log(`in ${output}: report.md, results.json, items.jsonl`)
}

/** Of a run that nothing is kept of. */
const numbersOf = ({ n, correct, accuracy, standardError, majority, passAt }: EvalResults) => ({
  n,
  correct,
  accuracy,
  standardError,
  ...(majority && { majority, passAt }),
})

async function questionsOf(flags: Flags): Promise<Question[]> {
  const { task, data, columns, limit = Number.POSITIVE_INFINITY } = flags
  if (task === undefined && data === undefined) throw new UsageError("one of '--task' and '--data' is needed")
  if (task !== undefined && columns)
    throw new UsageError("'--columns' is for rows of your own: a task knows its columns, leave out '--task'")
  const questions: Question[] = []
  const reading = new Progress('reading')
  try {
    for await (const question of task === undefined ? readQuestions(data!, columns) : readTask(task, data)) {
      if (questions.length === limit) break
      reading.count(questions.push(question), 'rows')
    }
  } finally {
    reading.end()
  }
  if (questions.length === 0) throw new DataError(`${data ?? task}: no rows`)
  return questions
}
