import { z } from 'zod'
import { FormatError, HalflingError, OptionError } from '../errors.ts'
import { exists, readTextFile, writeAtomically, writeError } from '../formats/node-file.ts'
import type { FinishReason } from '../generate/language-model.ts'

/** Everything that decides an evaluation's numbers, and whose numbers they are. */
export interface EvalSettings {
  /** null: rows of the user's own. */
  readonly task: string | null
  readonly rows: number
  /** SHA-256 of questions and answers. */
  readonly rowsHash: string
  readonly model: string
  readonly adapters: readonly string[]
  readonly dtype: string
  /** A name of `templates`, or the text itself. */
  readonly template: string
  readonly system: string | null
  readonly grader: string
  readonly numSamples: number
  readonly maxNewTokens: number
  readonly temperature: number
  readonly topK: number
  readonly topP: number
  readonly minP: number
  readonly repetitionPenalty: number
  readonly frequencyPenalty: number
  readonly presencePenalty: number
  readonly seed: number
  readonly stop: readonly string[]
}

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

const settingsSchema: z.ZodType<EvalSettings> = z.object({
  task: z.string().nullable(),
  rows: count,
  rowsHash: z.string(),
  model: z.string(),
  adapters: z.array(z.string()),
  dtype: z.string(),
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
  stop: z.array(z.string()),
})

/** `probe`: a number that the weights decide. */
const runSchema = z.object({ settings: settingsSchema, probe: z.number() })

/** Of weights that are the same, on whatever device. */
const probeTolerance = 1e-3

const join = async (folder: string, name: string): Promise<string> => (await import('node:path')).join(folder, name)
const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text)
const line = (item: AnsweredItem): string => `${JSON.stringify(item)}\n`
const byRow = (a: AnsweredItem, b: AnsweredItem): number => a.index - b.index || a.sample - b.sample

/** The keys of settings that are not the same, in the order of EvalSettings. */
export const differingKeys = (a: EvalSettings, b: EvalSettings): (keyof EvalSettings)[] =>
  (Object.keys(a) as (keyof EvalSettings)[]).filter((key) => JSON.stringify(a[key]) !== JSON.stringify(b[key]))

/** A folder that holds one evaluation: what was asked (run.json), each answer as it comes (items.jsonl), and the results. */
export class RunFolder {
  readonly folder: string
  private readonly items: string
  /** The answers so far. */
  readonly done: AnsweredItem[]

  private constructor(folder: string, items: string, done: AnsweredItem[]) {
    this.folder = folder
    this.items = items
    this.done = done
  }

  /**
   * Begins a run, or goes on with one of the same settings.
   *
   * @throws OptionError naming the first setting that differs, FormatError for a broken file
   */
  static async open(folder: string, settings: EvalSettings, probe: number): Promise<RunFolder> {
    const [run, items] = await Promise.all([join(folder, 'run.json'), join(folder, 'items.jsonl')])
    if (await exists(run)) checkSame(folder, await readRun(run), { settings, probe })
    else if (await exists(items))
      throw new OptionError(`${items}: belongs to no run: delete it, or give another output`)
    else await writeAtomically(run, [bytesOf(`${JSON.stringify({ settings, probe }, null, 2)}\n`)])
    return new RunFolder(folder, items, await readItems(items, true))
  }

  async append(item: AnsweredItem): Promise<void> {
    const { appendFile } = await import('node:fs/promises')
    await appendFile(this.items, line(item)).catch((cause) => {
      throw writeError(this.items, cause)
    })
    this.done.push(item)
  }

  /** Brings the answers into the order of the rows and writes what came of them: the same bytes, however often interrupted. */
  async finish(results: object, report: string): Promise<void> {
    const items = [...this.done].sort(byRow).map(line).join('')
    await writeAtomically(this.items, [bytesOf(items)])
    await writeAtomically(await join(this.folder, 'report.md'), [bytesOf(report)])
    const json = `${JSON.stringify(results, null, 2)}\n`
    await writeAtomically(await join(this.folder, 'results.json'), [bytesOf(json)])
  }
}

/**
 * A run that has ended.
 *
 * @throws OptionError for a folder without one, FormatError for a broken file
 */
export async function readFinished(folder: string): Promise<{ settings: EvalSettings; items: AnsweredItem[] }> {
  if (!(await exists(await join(folder, 'run.json'))))
    throw new OptionError(`${folder}: holds no evaluation: give the --output of halfling eval`)
  const { settings } = await readRun(await join(folder, 'run.json'))
  const items = await readItems(await join(folder, 'items.jsonl'), false)
  const [got, wanted] = [items.length, settings.rows * settings.numSamples]
  if (got !== wanted)
    throw new OptionError(`${folder}: has ${got} of ${wanted} answers: run the same halfling eval again, it goes on`)
  return { settings, items: items.sort(byRow) }
}

type Run = z.infer<typeof runSchema>

function checkSame(folder: string, before: Run, now: Run): void {
  const [key] = differingKeys(now.settings, before.settings)
  if (key !== undefined) {
    const [given, there] = [now, before].map(({ settings }) => JSON.stringify(settings[key]))
    throw new OptionError(
      `${folder}: holds an evaluation with another ${key} (${there}, now ${given}): give another output, or delete it`,
    )
  }
  if (Math.abs(now.probe - before.probe) > probeTolerance * Math.max(1, Math.abs(before.probe)))
    throw new OptionError(
      `${folder}: holds an evaluation of other weights, although they have the same name: give another output, or delete it`,
    )
}

async function readRun(path: string): Promise<Run> {
  return parse(runSchema, await readTextFile(path), path)
}

/** `mend`: a last line that was cut off is dropped, from the file too. */
async function readItems(path: string, mend: boolean): Promise<AnsweredItem[]> {
  if (!(await exists(path))) return []
  const fs = await import('node:fs/promises')
  if (mend) await dropTornLine(path)
  const items: AnsweredItem[] = []
  const seen = new Set<string>()
  const lines = (await fs.readFile(path, 'utf8')).split('\n')
  for (const [i, text] of lines.entries()) {
    if (text === '') continue
    const item = parse(itemSchema, text, `${path}:${i + 1}`)
    const key = `${item.index} ${item.sample}`
    if (seen.has(key))
      throw new FormatError(`${path}:${i + 1}: answers row ${item.index} a second time: delete the line`)
    seen.add(key)
    items.push(item)
  }
  return items
}

async function dropTornLine(path: string): Promise<void> {
  const fs = await import('node:fs/promises')
  const bytes = await fs.readFile(path)
  const whole = bytes.lastIndexOf(10) + 1
  if (whole === bytes.length) return
  await fs.truncate(path, whole).catch((cause) => {
    throw writeError(path, cause)
  })
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
