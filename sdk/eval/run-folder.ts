import { FormatError, HalflingError, OptionError } from '../errors.ts'
import type { FinishReason } from '../generate/answer.ts'
import { checkSameSettings } from '../same-settings.ts'
import { join } from '../store/path.ts'
import type { Source, Store } from '../store/store.ts'
import { jsonChunks, readText, textChunks } from '../store/text.ts'
import { z } from '../zod.ts'

/** One answer to one question: a line of items.jsonl. */
export interface AnsweredItem {
  /** Of the row, from 0. */
  readonly index: number
  /** Which of its answers, from 0. */
  readonly sample: number
  readonly question: string
  /** The right answer. */
  readonly gold: string
  /** What the model wrote. */
  readonly text: string
  /** The answer found in it, or null. */
  readonly answer: string | null
  readonly correct: boolean
  /** Tokens of the text, with the end token. */
  readonly tokens: number
  /** `length`: it was cut off. */
  readonly finishReason: FinishReason
}

const count = z.number().int().nonnegative()
const itemSchema: z.ZodType<AnsweredItem> = z.object({
  index: count,
  sample: count,
  question: z.string(),
  gold: z.string(),
  text: z.string(),
  answer: z.string().nullable(),
  correct: z.boolean(),
  tokens: count,
  finishReason: z.enum(['stop', 'length']),
})

/** Everything that decides an evaluation's numbers, and whose numbers they are. */
const settingsSchema = z.object({
  /** null: rows of the user's own. */
  task: z.string().nullable(),
  rows: count,
  /** SHA-256 of questions and answers. */
  rowsHash: z.string(),
  model: z.string(),
  adapters: z.array(z.string()).readonly(),
  dtype: z.string(),
  /** A name of `templates`, or the text itself. */
  template: z.string(),
  system: z.string().nullable(),
  grader: z.string(),
  numSamples: z.number().int().positive(),
  maxNewTokens: z.number().int().positive(),
  temperature: z.number(),
  topK: z.number(),
  topP: z.number(),
  minP: z.number(),
  repetitionPenalty: z.number(),
  frequencyPenalty: z.number(),
  presencePenalty: z.number(),
  seed: z.number(),
  stop: z.array(z.string()).readonly(),
})

export type EvalSettings = Readonly<z.infer<typeof settingsSchema>>

/** `probe`: a number that the weights decide. */
const runSchema = z.object({ settings: settingsSchema, probe: z.number() })

/** Of weights that are the same, on whatever device. */
const probeTolerance = 1e-3

const [runFile, itemsFile] = ['run.json', 'items.jsonl']
const line = (item: AnsweredItem): string => `${JSON.stringify(item)}\n`
export const byRow = (a: AnsweredItem, b: AnsweredItem): number => a.index - b.index || a.sample - b.sample

/** A folder that holds one evaluation: what was asked (run.json), each answer as it comes (items.jsonl), and the results. */
export class RunFolder {
  private readonly store: Store
  /** The answers so far. */
  readonly done: AnsweredItem[]

  private constructor(store: Store, done: AnsweredItem[]) {
    this.store = store
    this.done = done
  }

  /**
   * Begins a run, or goes on with one of the same settings.
   *
   * @throws OptionError naming the first setting that differs, FormatError for a broken file
   */
  static async open(store: Store, settings: EvalSettings, probe: number): Promise<RunFolder> {
    const before = await readRun(store)
    if (before) checkSame(store.name, before, { settings, probe })
    else if (await store.open(itemsFile))
      throw new OptionError(`${join(store.name, itemsFile)}: belongs to no run: delete it, or give another output`)
    else await store.write(runFile, jsonChunks({ settings, probe }))
    await dropTornLine(store)
    return new RunFolder(store, await readItems(store))
  }

  async append(item: AnsweredItem): Promise<void> {
    await this.store.append(itemsFile, textChunks(line(item)))
    this.done.push(item)
  }

  /** Brings the answers into the order of the rows and writes what came of them: the same bytes, however often interrupted. */
  async finish(results: object, report: string): Promise<void> {
    await this.store.write(itemsFile, textChunks([...this.done].sort(byRow).map(line).join('')))
    await this.store.write('report.md', textChunks(report))
    await this.store.write('results.json', jsonChunks(results))
  }
}

/**
 * A run that has ended.
 *
 * @throws OptionError for a folder without one, FormatError for a broken file
 */
export async function readFinished(folder: Source): Promise<{ settings: EvalSettings; items: AnsweredItem[] }> {
  const run = await readRun(folder)
  if (!run) throw new OptionError(`${folder.name}: holds no evaluation: give the --output of halfling eval`)
  const { settings } = run
  const items = await readItems(folder)
  const [got, wanted] = [items.length, settings.rows * settings.numSamples]
  if (got !== wanted)
    throw new OptionError(
      `${folder.name}: has ${got} of ${wanted} answers: run the same halfling eval again, it goes on`,
    )
  return { settings, items: items.sort(byRow) }
}

type Run = z.infer<typeof runSchema>

function checkSame(folder: string, before: Run, now: Run): void {
  checkSameSettings(folder, before.settings, now.settings)
  if (Math.abs(now.probe - before.probe) > probeTolerance * Math.max(1, Math.abs(before.probe)))
    throw new OptionError(
      `${folder}: holds an evaluation of other weights, although they have the same name: give another output, or delete it`,
    )
}

async function readRun(folder: Source): Promise<Run | null> {
  const text = await readText(folder, runFile)
  return text === null ? null : parse(runSchema, text, join(folder.name, runFile))
}

async function readItems(folder: Source): Promise<AnsweredItem[]> {
  const file = join(folder.name, itemsFile)
  const items: AnsweredItem[] = []
  const seen = new Set<string>()
  for (const [i, text] of ((await readText(folder, itemsFile)) ?? '').split('\n').entries()) {
    if (text === '') continue
    const item = parse(itemSchema, text, `${file}:${i + 1}`)
    const key = `${item.index} ${item.sample}`
    if (seen.has(key))
      throw new FormatError(`${file}:${i + 1}: answers row ${item.index} a second time: delete the line`)
    seen.add(key)
    items.push(item)
  }
  return items
}

/** A last line that was cut off goes. */
async function dropTornLine(store: Store): Promise<void> {
  const file = await store.open(itemsFile)
  if (!file) return
  const bytes = await file.read(0, file.size)
  const whole = bytes.lastIndexOf(10) + 1
  if (whole < bytes.length) await store.append(itemsFile, [], whole)
}

function parse<T>(schema: z.ZodType<T>, text: string, place: string): T {
  try {
    return schema.parse(JSON.parse(text))
  } catch (cause) {
    if (cause instanceof HalflingError) throw cause
    const reason = cause instanceof z.ZodError ? z.prettifyError(cause).replace(/\s+/g, ' ') : (cause as Error).message
    throw new FormatError(`${place}: is not what halfling eval wrote: ${reason}: delete it, or give another output`, {
      cause,
    })
  }
}
