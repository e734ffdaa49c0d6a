import { expose, type ProxyMarked, proxy } from 'comlink'
import { notScored } from '../data/pack.ts'
import { surveyRows } from '../data/survey.ts'
import {
  type CachedModel,
  type ChatMessage,
  type ChatOptions,
  type DeviceReport,
  DistillTrainer,
  type ExactMatch,
  type ExactMatchProgress,
  evaluateExactMatch,
  type Folder,
  type Forecast,
  fileFolder,
  findDevices,
  GRPOTrainer,
  HalflingError,
  importModel,
  type LanguageModel,
  type LoadProgress,
  listModels,
  loadAdapter,
  loadModel,
  OptionError,
  type Piece,
  type PullProgress,
  pullModel,
  type Question,
  type RewardFunction,
  type RowSource,
  removeModel,
  SFTTrainer,
  type TrainLog,
  urlFolder,
} from '../index.ts'
import type {
  AdapterState,
  DistillJob,
  GrpoJob,
  LoadSettings,
  ModelInfo,
  ModelPlace,
  RowPreview,
  SftJob,
  TrainEvent,
} from './types.ts'
import { carryErrors } from './wire.ts'

// The engine's side in its Worker: calls the SDK, and hands out what it iterates over one by one.

export type Job =
  | { readonly kind: 'sft'; readonly options: SftJob }
  | { readonly kind: 'grpo'; readonly options: GrpoJob }
  | { readonly kind: 'distill'; readonly options: DistillJob }

/** An iteration that the page asks for piece by piece: nothing runs ahead of it, and a pause is not asking. */
export interface Stream<T> extends ProxyMarked {
  next(): Promise<IteratorResult<T, void>>
  /** What runs ends with an AbortError. */
  abort(): void
  return(): Promise<unknown>
}

/** Ends a forecast before the first step. */
class Foreseen {
  readonly forecast: Forecast
  constructor(forecast: Forecast) {
    this.forecast = forecast
  }
}

let lm: LanguageModel | null = null
let training = false
let onDeviceLost = () => {}
let lossesTold = 0

/** Devices that were lost under the model so far. */
const losses = (): number => (lm?.model.target as { losses?: number } | undefined)?.losses ?? 0

function tellLosses(): void {
  if (losses() > lossesTold) onDeviceLost()
  lossesTold = losses()
}

function loaded(): LanguageModel {
  if (lm === null) throw new OptionError('no model is loaded: load one first')
  return lm
}

/** Throws OptionError while a training runs. */
function idle(what: string): LanguageModel {
  const model = loaded()
  if (training) throw new OptionError(`${what}: a training runs, end it first`)
  return model
}

let told: Promise<unknown> = Promise.resolve()

/**
 * A callback of the page. What comes after its calls waits for them: a result has another port than they have, and would overtake
 * them.
 */
const telling =
  <T>(callback: (value: T) => unknown) =>
  (value: T): void => {
    told = Promise.all([told, callback(value)]).catch(() => {})
  }

function stream<T>(make: (signal: AbortSignal) => AsyncGenerator<T, void>): Stream<T> {
  const controller = new AbortController()
  const run = make(controller.signal)
  const next = () =>
    run.next().finally(async () => {
      await told
      tellLosses()
    })
  return proxy({ next, abort: () => controller.abort(), return: () => run.return() })
}

const folderOf = (place: readonly File[] | { readonly url: string }): Folder =>
  'url' in place ? urlFolder(place.url) : fileFolder(place)

/** The source of a RewardFunction. Throws OptionError when it is not one. */
function rewardOf(source: string): RewardFunction {
  let reward: unknown
  try {
    reward = new Function(`"use strict"; return (${source.trim().replace(/;$/, '')}\n)`)()
  } catch (error) {
    throw new OptionError(`the reward is not JavaScript: ${(error as Error).message}`)
  }
  if (typeof reward !== 'function')
    throw new OptionError('the reward is not a function: write function reward(completions) { ... }')
  return reward as RewardFunction
}

function trainerOf(model: LanguageModel, job: Job, tell: (event: TrainEvent) => void) {
  const onWarning = (warning: string) => tell({ kind: 'warning', warning })
  switch (job.kind) {
    case 'sft':
      return new SFTTrainer({ ...job.options, model, onWarning })
    case 'grpo': {
      const { rewards, ...options } = job.options
      const onRollouts = (rollouts: Extract<TrainEvent, { kind: 'rollouts' }>['rollouts']) =>
        tell({ kind: 'rollouts', rollouts })
      return new GRPOTrainer({ ...options, model, rewardFuncs: [rewards].flat().map(rewardOf), onWarning, onRollouts })
    }
    case 'distill':
      return new DistillTrainer({ ...job.options, model, onWarning })
  }
}

const engine = {
  watch(callback: () => void): void {
    onDeviceLost = callback
  },

  devices: (measure: boolean): Promise<DeviceReport[]> => findDevices({ measure }),

  async load(
    place: ModelPlace,
    settings: LoadSettings,
    onProgress: (progress: LoadProgress | PullProgress) => void,
  ): Promise<ModelInfo> {
    if (training) throw new OptionError('load: a training runs, end it first')
    await lm?.close()
    lm = null
    const name = typeof place === 'string' ? place : folderOf(place)
    lm = await loadModel(name, { ...settings, onProgress: telling(onProgress) })
    await told
    const { config, weights, target } = lm.model
    return {
      device: { name: target.name, ...target.info },
      parameters: [...weights].reduce(
        (sum, [key, { shape }]) => sum + (key.startsWith('rope/') ? 0 : shape.reduce((a, b) => a * b, 1)),
        0,
      ),
      context: config.maxPositionEmbeddings,
      chats: lm.chatTemplate !== null,
    }
  },

  models: (): Promise<CachedModel[]> => listModels(),

  pull: (name: string, onProgress: (progress: PullProgress) => void): Stream<string> =>
    stream(async function* (signal) {
      yield await pullModel(name, { onProgress: telling(onProgress), signal })
    }),

  async importModel(files: readonly File[], name: string, onProgress: (progress: PullProgress) => void): Promise<void> {
    await importModel(files, name, { onProgress: telling(onProgress) })
    await told
  },

  removeModel: (name: string) => removeModel(name),

  chat: (messages: readonly ChatMessage[], options: Omit<ChatOptions, 'signal'>): Stream<Piece> =>
    stream((signal) => loaded().chat(messages, { ...options, signal })),

  train: (job: Job, resume: boolean, tell: (event: TrainEvent) => void): Stream<TrainLog> =>
    stream(async function* (signal) {
      const trainer = trainerOf(idle('train'), job, telling(tell))
      training = true
      try {
        yield* trainer.train({
          resume,
          signal,
          onProgress: telling((progress) => tell({ kind: 'progress', progress })),
        })
      } finally {
        training = false
      }
    }),

  async forecast(job: Job): Promise<Forecast> {
    const trainer = trainerOf(idle('forecast'), job, () => {})
    training = true
    try {
      const onProgress = (progress: { phase: string; forecast?: Forecast }) => {
        if (progress.phase === 'ready') throw new Foreseen(progress.forecast!)
      }
      await trainer.train({ onProgress }).next()
      throw new HalflingError('internal', 'a training began without a forecast')
    } catch (error) {
      if (error instanceof Foreseen) return error.forecast
      throw error
    } finally {
      training = false
    }
  },

  async preview(rows: RowSource, show: number): Promise<RowPreview> {
    const { tokenizer, chatTemplate } = loaded()
    const { examples, ...survey } = await surveyRows(rows, tokenizer, chatTemplate, show)
    return {
      ...survey,
      examples: examples.map(({ inputIds, labels }) =>
        inputIds.map((id, t) => ({ text: tokenizer.decode([id]), scored: t > 0 && labels[t] !== notScored })),
      ),
    }
  },

  /** Gives one result. */
  accuracy: (
    questions: readonly Question[],
    options: { readonly maxNewTokens?: number },
    onProgress: (progress: ExactMatchProgress) => void,
  ): Stream<ExactMatch> =>
    stream(async function* (signal) {
      yield await evaluateExactMatch(loaded(), questions, { ...options, signal }, telling(onProgress))
    }),

  adapters(): AdapterState[] {
    const { adapters, activeAdapters } = loaded().model
    return [...adapters].map(([name, { config }]) => ({ name, active: activeAdapters.includes(name), rank: config.r }))
  },

  setAdapters: (names: readonly string[]): Promise<void> => idle('setAdapters').setAdapters(names),

  loadAdapter: (folder: string, name: string): Promise<string> => loadAdapter(idle('loadAdapter'), folder, name),

  async renameAdapter(from: string, to: string): Promise<void> {
    const { model } = idle('renameAdapter')
    const active = [...model.activeAdapters]
    if (!model.adapters.has(from)) throw new OptionError(`adapter "${from}" is not loaded`)
    if (model.adapters.has(to)) throw new OptionError(`adapter "${to}" is loaded already: give another name`)
    // Its numbers come back to the host.
    await model.setAdapters(active.filter((name) => name !== from))
    model.adapters.set(to, { ...model.adapters.get(from)!, name: to })
    model.adapters.delete(from)
    await model.setAdapters(active.map((name) => (name === from ? to : name)))
  },

  async removeAdapter(name: string): Promise<void> {
    const { model } = idle('removeAdapter')
    if (!model.adapters.has(name)) throw new OptionError(`adapter "${name}" is not loaded`)
    await model.setAdapters(model.activeAdapters.filter((active) => active !== name))
    model.adapters.delete(name)
  },

  adapterFiles: (name: string): Promise<Map<string, Blob>> => loaded().adapterFiles(name),

  loseDevice(): void {
    const target = loaded().model.target as { loseDevice?: () => void; name: string }
    if (!target.loseDevice) throw new OptionError(`loseDevice: ${target.name} cannot be lost`)
    target.loseDevice()
  },

  async close(): Promise<void> {
    await lm?.close()
    lm = null
  },
}

export type EngineWorker = typeof engine

carryErrors()
expose(engine)
