import { z } from 'zod'
import { FormatError, OptionError } from '../errors.ts'
import { fileSystem, join } from '../formats/file-system.ts'
import { exists, openFile, writeAtomically, writeError } from '../formats/node-file.ts'
import { openSafetensors, writeSafetensors } from '../formats/safetensors.ts'
import type { TrainStep } from './step.ts'

/** Where a run stands: everything else follows from the seed and the step. */
export interface TrainerState {
  readonly version: 1
  /** Optimizer steps done. */
  readonly step: number
  /** Tokens seen. */
  readonly tokens: number
  /** Metrics of the steps since the last line of the log. */
  readonly pending: readonly { readonly loss: number; readonly [metric: string]: number }[]
  /** Length of metrics.jsonl at this step, in bytes. */
  readonly metricsBytes: number
  /** The best evaluation: the lowest loss, or the highest reward. */
  readonly best: { readonly step: number; readonly value: number } | null
  /** Evaluations since the best one. */
  readonly evaluationsSinceBest: number
  /** What the trainer itself remembers from one step to the next. */
  readonly own?: unknown
  /** Arguments that decide the numbers; a resumed run must have the same. */
  readonly arguments: Readonly<Record<string, unknown>>
}

const count = z.number().int().nonnegative()
const trainerState: z.ZodType<TrainerState> = z.object({
  version: z.literal(1),
  step: count,
  tokens: count,
  pending: z.array(z.looseObject({ loss: z.number() }).catchall(z.number())),
  metricsBytes: count,
  best: z.object({ step: count, value: z.number() }).nullable(),
  evaluationsSinceBest: count,
  own: z.unknown().optional(),
  arguments: z.record(z.string(), z.unknown()),
})

const stateFile = 'trainer_state.json'
const optimizerFile = 'optimizer.safetensors'
const checkpointName = (step: number) => `checkpoint-${step}`

/**
 * Writes `checkpoint-<step>` beside its place and renames it, trainer_state.json last where files are moved one by one: it is whole
 * when that is there. Returns its path.
 */
export async function saveCheckpoint(
  outputDir: string,
  state: TrainerState,
  step: TrainStep,
  writeWeights: (folder: string) => Promise<void>,
): Promise<string> {
  const fs = await fileSystem()
  const final = join(outputDir, checkpointName(state.step))
  const beside = `${final}.tmp`
  try {
    await fs.rm(beside, { recursive: true, force: true })
    await fs.mkdir(beside, { recursive: true })
    await writeWeights(beside)
    const moments = []
    for (const { name, type } of step.moments())
      moments.push({
        name,
        dtype: 'F32',
        shape: [...type.shape],
        data: new Uint8Array((await step.model.readFloats(name)).buffer),
      } as const)
    await writeSafetensors(join(beside, optimizerFile), moments)
    await writeAtomically(join(beside, stateFile), [new TextEncoder().encode(`${JSON.stringify(state, null, 2)}\n`)])
    await fs.rm(final, { recursive: true, force: true })
    await fs.rename(beside, final)
  } catch (error) {
    await fs.rm(beside, { recursive: true, force: true })
    throw writeError(final, error)
  }
  return final
}

/** The whole checkpoints in a folder, oldest first. */
export async function listCheckpoints(outputDir: string): Promise<{ step: number; folder: string }[]> {
  const fs = await fileSystem()
  const names = await fs.readdir(outputDir).catch(() => [] as string[])
  const whole = []
  for (const name of names) {
    const match = /^checkpoint-(\d+)$/.exec(name)
    const folder = join(outputDir, name)
    if (match && (await exists(join(folder, stateFile)))) whole.push({ step: Number(match[1]), folder })
  }
  return whole.sort((a, b) => a.step - b.step)
}

/** Deletes what was cut off while being written. */
export async function removeCutOff(outputDir: string): Promise<void> {
  const fs = await fileSystem()
  for (const name of await fs.readdir(outputDir).catch(() => [] as string[])) {
    const folder = join(outputDir, name)
    const cutOff = /^checkpoint-\d+$/.test(name) && !(await exists(join(folder, stateFile)))
    if (cutOff || /^checkpoint-\d+\.tmp$/.test(name)) await fs.rm(folder, { recursive: true, force: true })
  }
}

/** Deletes the oldest checkpoints above `limit`, never the best nor the newest. */
export async function rotateCheckpoints(
  outputDir: string,
  limit: number | null,
  bestStep: number | null,
): Promise<void> {
  if (limit === null) return
  const fs = await fileSystem()
  const all = await listCheckpoints(outputDir)
  const newest = all.at(-1)?.step
  let excess = all.length - Math.max(1, limit)
  for (const { step, folder } of all) {
    if (excess <= 0) return
    if (step === bestStep || step === newest) continue
    await fs.rm(folder, { recursive: true, force: true })
    excess--
  }
}

/** Reads a checkpoint's state and refuses it when the run's arguments differ. Throws FormatError, OptionError. */
export async function readState(folder: string, args: Readonly<Record<string, unknown>>): Promise<TrainerState> {
  const fs = await fileSystem()
  const file = join(folder, stateFile)
  const remedy = '(delete the checkpoint to resume from an older one)'
  let json: unknown
  try {
    json = JSON.parse(await fs.readFile(file, 'utf8'))
  } catch (cause) {
    throw new FormatError(`${file}: not readable: ${(cause as Error).message} ${remedy}`, { cause })
  }
  const parsed = trainerState.safeParse(json)
  if (!parsed.success) {
    const [{ path, message }] = parsed.error.issues
    throw new FormatError(`${file}: ${path.join('.') || 'trainer state'}: ${message} ${remedy}`)
  }
  const state = parsed.data
  for (const key of new Set([...Object.keys(args), ...Object.keys(state.arguments)])) {
    const [was, is] = [JSON.stringify(state.arguments[key]), JSON.stringify(args[key])]
    if (was !== is)
      throw new OptionError(
        `${folder} was trained with ${key} ${was}, this run has ${is}: use the same, or another output folder`,
      )
  }
  return state
}

/** Puts the Adam moments of a checkpoint back onto the target. */
export async function restoreMoments(folder: string, step: TrainStep): Promise<void> {
  const source = await openFile(join(folder, optimizerFile))
  try {
    const file = await openSafetensors(source)
    for (const { name, type } of step.moments()) {
      const stored = file.tensors.get(name)
      if (stored?.dtype !== 'F32' || stored.shape.join() !== type.shape.join())
        throw new FormatError(
          `${source.name}: ${name}: expected F32 [${type.shape.join(', ')}], ${stored ? `got ${stored.dtype} [${stored.shape.join(', ')}]` : 'it is missing'}`,
        )
      await step.model.target.write(step.model.buffer(name, type), await stored.read())
    }
  } finally {
    await source.close()
  }
}
