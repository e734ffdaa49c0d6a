import { bytesOf } from '../bytes.ts'
import { byteLength } from '../dtype.ts'
import { FormatError } from '../errors.ts'
import { openSafetensors, safetensorsStream } from '../formats/safetensors.ts'
import { checkSameSettings } from '../same-settings.ts'
import { join } from '../store/path.ts'
import { below, type Chunks, type Files, type Source, type Store } from '../store/store.ts'
import { opened, readJson, textChunks } from '../store/text.ts'
import { z } from '../zod.ts'
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

/** Writes `checkpoint-<step>`, whole or not at all. `trained`: what `trainedFiles` gives. */
export async function saveCheckpoint(
  output: Store,
  state: TrainerState,
  step: TrainStep,
  trained: Files,
): Promise<void> {
  const moments = [...step.moments()].map(({ name, type }) => ({
    name,
    dtype: 'F32' as const,
    shape: type.shape,
    bytes: byteLength(type),
    async *chunks() {
      yield bytesOf(await step.model.readFloats(name))
    },
  }))
  // The state last: a checkpoint is whole when that is there.
  const files = new Map<string, Chunks>([
    ...trained,
    [optimizerFile, safetensorsStream(moments)],
    // In one line: a batch of completions may be in it.
    [stateFile, textChunks(`${JSON.stringify(state)}\n`)],
  ])
  await output.write(`checkpoint-${state.step}`, files)
}

/** The whole checkpoints of a run, oldest first. */
export async function listCheckpoints(output: Store): Promise<{ step: number; folder: Source }[]> {
  const whole = []
  for (const { name } of await output.list()) {
    const [, step] = /^checkpoint-(\d+)$/.exec(name) ?? []
    const folder = below(output, name)
    if (step !== undefined && (await folder.open(stateFile))) whole.push({ step: Number(step), folder })
  }
  return whole.sort((a, b) => a.step - b.step)
}

/** Deletes what was cut off while being written. */
export async function removeCutOff(output: Store): Promise<void> {
  for (const { name } of await output.list()) {
    const isCutOff = /^checkpoint-\d+$/.test(name) && !(await output.open(join(name, stateFile)))
    if (isCutOff || /^checkpoint-\d+\.tmp/.test(name)) await output.remove(name)
  }
}

/** Deletes the oldest checkpoints above `limit`, never the best nor the newest. */
export async function rotateCheckpoints(output: Store, limit: number | null, bestStep: number | null): Promise<void> {
  if (limit === null) return
  const all = await listCheckpoints(output)
  const newest = all.at(-1)?.step
  let excess = all.length - Math.max(1, limit)
  for (const { step } of all) {
    if (excess <= 0) return
    if (step === bestStep || step === newest) continue
    await output.remove(`checkpoint-${step}`)
    excess--
  }
}

/** Reads a checkpoint's state and refuses it when the run's arguments differ. Throws FormatError, OptionError. */
export async function readState(folder: Source, args: Readonly<Record<string, unknown>>): Promise<TrainerState> {
  const file = join(folder.name, stateFile)
  const remedy = '(delete the checkpoint to resume from an older one)'
  const json = await readJson(folder, stateFile).catch((cause) => {
    throw new FormatError(`${cause.message} ${remedy}`, { cause })
  })
  const parsed = trainerState.safeParse(json)
  if (!parsed.success) {
    const [{ path, message }] = parsed.error.issues
    throw new FormatError(`${file}: ${path.join('.') || 'trainer state'}: ${message} ${remedy}`)
  }
  checkSameSettings(folder.name, parsed.data.arguments, args)
  return parsed.data
}

/** Puts the Adam moments of a checkpoint back onto the target. */
export async function restoreMoments(folder: Source, step: TrainStep): Promise<void> {
  const source = await opened(folder, optimizerFile)
  const file = await openSafetensors(source)
  for (const { name, type } of step.moments()) {
    const stored = file.tensors.get(name)
    if (stored?.dtype !== 'F32' || stored.shape.join() !== type.shape.join())
      throw new FormatError(
        `${source.name}: ${name}: expected F32 [${type.shape.join(', ')}], ${stored ? `got ${stored.dtype} [${stored.shape.join(', ')}]` : 'it is missing'}`,
      )
    await step.model.target.write(step.model.buffer(name, type), await stored.read())
  }
}
