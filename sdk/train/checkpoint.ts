import { z } from 'zod'
import { FormatError, OptionError } from '../errors.ts'
import { fileSystem, join } from '../formats/file-system.ts'
import { exists, makeFolder, openFile, writeAtomically, writeError } from '../formats/files.ts'
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

/** Writes `checkpoint-<step>`, its state last: without that a folder is no checkpoint. Returns its path. */
export async function saveCheckpoint(
  outputDir: string,
  state: TrainerState,
  step: TrainStep,
  writeWeights: (folder: string) => Promise<void>,
): Promise<string> {
  const folder = join(outputDir, checkpointName(state.step))
  try {
    await removeCheckpoint(folder)
    await makeFolder(folder)
    await writeWeights(folder)
    const moments = []
    for (const { name, type } of step.moments())
      moments.push({
        name,
        dtype: 'F32',
        shape: [...type.shape],
        data: new Uint8Array((await step.model.readFloats(name)).buffer),
      } as const)
    await writeSafetensors(join(folder, optimizerFile), moments)
    await writeAtomically(join(folder, stateFile), [new TextEncoder().encode(`${JSON.stringify(state, null, 2)}\n`)])
  } catch (error) {
    await removeCheckpoint(folder)
    throw writeError(folder, error)
  }
  return folder
}

/** Its state first: what is left when this is cut off is no checkpoint. */
async function removeCheckpoint(folder: string): Promise<void> {
  const { rm } = await fileSystem()
  await rm(join(folder, stateFile), { force: true })
  await rm(folder, { recursive: true, force: true })
}

/** Checkpoints in a folder, oldest first, without those that were cut off while being written or deleted. */
export async function listCheckpoints(outputDir: string): Promise<{ step: number; folder: string }[]> {
  const { readdir } = await fileSystem()
  const found: { step: number; folder: string }[] = []
  for (const name of await readdir(outputDir).catch(() => [])) {
    const [, step] = /^checkpoint-(\d+)$/.exec(name) ?? []
    const folder = join(outputDir, name)
    if (step !== undefined && (await exists(join(folder, stateFile)))) found.push({ step: Number(step), folder })
  }
  return found.sort((a, b) => a.step - b.step)
}

/** Deletes the oldest checkpoints above `limit`, never the best nor the newest. */
export async function rotateCheckpoints(
  outputDir: string,
  limit: number | null,
  bestStep: number | null,
): Promise<void> {
  if (limit === null) return
  const all = await listCheckpoints(outputDir)
  const newest = all.at(-1)?.step
  let excess = all.length - Math.max(1, limit)
  for (const { step, folder } of all) {
    if (excess <= 0) return
    if (step === bestStep || step === newest) continue
    await removeCheckpoint(folder)
    excess--
  }
}

/** Reads a checkpoint's state and refuses it when the run's arguments differ. Throws FormatError, OptionError. */
export async function readState(folder: string, args: Readonly<Record<string, unknown>>): Promise<TrainerState> {
  const { readFile } = await fileSystem()
  const file = join(folder, stateFile)
  const remedy = '(delete the checkpoint to resume from an older one)'
  let json: unknown
  try {
    json = JSON.parse(await readFile(file, 'utf8'))
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
