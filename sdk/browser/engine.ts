import { proxy, type Remote, releaseProxy, wrap } from 'comlink'
import { DeviceError } from '../errors.ts'
import type {
  CachedModel,
  ChatMessage,
  ChatOptions,
  DeviceReport,
  ExactMatch,
  ExactMatchProgress,
  Forecast,
  LoadProgress,
  Piece,
  PullProgress,
  Question,
  RowSource,
  TrainLog,
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
  TrainCall,
} from './types.ts'
import { carryErrors } from './wire.ts'
import type { EngineWorker, Job, Stream } from './worker.ts'

/**
 * Halfling in a Worker of its own: what computes never holds up the page. One model at a time. Errors are thrown as the SDK
 * throws them.
 *
 * ```ts sketch
 * const engine = await openEngine()
 * await engine.load('nano')
 * for await (const piece of engine.chat([{ role: 'user', content: 'What is 17 + 25?' }])) show(piece.text)
 * ```
 */
export class Engine {
  private readonly worker: Worker
  private readonly remote: Remote<EngineWorker>

  /** @internal */
  constructor(worker: Worker, remote: Remote<EngineWorker>) {
    this.worker = worker
    this.remote = remote
  }

  /** As `findDevices`. */
  devices({ measure = false } = {}): Promise<DeviceReport[]> {
    return this.remote.devices(measure)
  }

  /** Loads a model in place of the one before. Throws as `loadModel`. */
  load(
    place: ModelPlace = 'nano',
    settings: LoadSettings = {},
    onProgress: (progress: LoadProgress | PullProgress) => void = () => {},
  ): Promise<ModelInfo> {
    return this.remote.load(place, settings, proxy(onProgress))
  }

  /** As `listModels`: what is kept in the browser's storage. */
  models(): Promise<CachedModel[]> {
    return this.remote.models()
  }

  /** As `pullModel`, into the browser's storage; `load` does it too. */
  async pull(
    name: string,
    onProgress: (progress: PullProgress) => void = () => {},
    signal?: AbortSignal,
  ): Promise<string> {
    return only(iterate<string>(() => this.remote.pull(name, proxy(onProgress)), signal))
  }

  /** As `importModel`: copies files into the browser's storage, where `load` finds them by name. */
  async importModel(
    files: readonly File[],
    name: string,
    onProgress: (progress: PullProgress) => void = () => {},
  ): Promise<void> {
    await this.remote.importModel(files, name, proxy(onProgress))
  }

  /** As `removeModel`. */
  async removeModel(name: string): Promise<void> {
    await this.remote.removeModel(name)
  }

  /** As `LanguageModel.chat`: stop with `signal`, or by leaving the loop. */
  chat(messages: readonly ChatMessage[], { signal, ...options }: ChatOptions = {}): AsyncGenerator<Piece, void> {
    return iterate<Piece>(() => this.remote.chat(messages, options), signal)
  }

  /** As `SFTTrainer.train`. The next step begins when the loop asks for its log: waiting in the loop is a pause. */
  sft(options: SftJob, call?: TrainCall): AsyncGenerator<TrainLog, void> {
    return this.train({ kind: 'sft', options }, call)
  }

  /** As `GRPOTrainer.train`. */
  grpo(options: GrpoJob, call?: TrainCall): AsyncGenerator<TrainLog, void> {
    return this.train({ kind: 'grpo', options }, call)
  }

  /** As `DistillTrainer.train`. */
  distill(options: DistillJob, call?: TrainCall): AsyncGenerator<TrainLog, void> {
    return this.train({ kind: 'distill', options }, call)
  }

  private train(job: Job, { resume = false, signal, onEvent = () => {} }: TrainCall = {}) {
    return iterate<TrainLog>(() => this.remote.train(job, resume, proxy(onEvent)), signal)
  }

  /** The memory of a training's largest step; nothing is trained. Throws MemoryError when it does not fit. */
  forecast(job: Job): Promise<Forecast> {
    return this.remote.forecast(job)
  }

  /** What training would see of rows, the first `show` of them token by token. */
  preview(rows: RowSource, show = 3): Promise<RowPreview> {
    return this.remote.preview(rows, show)
  }

  /** As `evaluateExactMatch`. */
  async accuracy(
    questions: readonly Question[],
    options: { readonly maxNewTokens?: number; readonly signal?: AbortSignal } = {},
    onProgress: (progress: ExactMatchProgress) => void = () => {},
  ): Promise<ExactMatch> {
    const { signal, ...rest } = options
    return only(iterate<ExactMatch>(() => this.remote.accuracy(questions, rest, proxy(onProgress)), signal))
  }

  /** The adapters that are loaded. */
  adapters(): Promise<AdapterState[]> {
    return this.remote.adapters()
  }

  /** As `LanguageModel.setAdapters`. */
  setAdapters(names: readonly string[]): Promise<void> {
    return this.remote.setAdapters(names)
  }

  /** As `loadAdapter`, from a folder in the browser's storage: it is then active beside those that were. */
  loadAdapter(folder: string, name: string): Promise<string> {
    return this.remote.loadAdapter(folder, name)
  }

  /** Trainers call theirs `default`. Throws OptionError for a name that is taken. */
  renameAdapter(from: string, to: string): Promise<void> {
    return this.remote.renameAdapter(from, to)
  }

  /** Forgets an adapter. */
  removeAdapter(name: string): Promise<void> {
    return this.remote.removeAdapter(name)
  }

  /** As `LanguageModel.adapterFiles`: what PEFT reads. */
  adapterFiles(name: string): Promise<Map<string, Blob>> {
    return this.remote.adapterFiles(name)
  }

  /** Ends the device under the model, as a driver does: for tests. */
  loseDevice(): Promise<void> {
    return this.remote.loseDevice()
  }

  /** Frees everything, at once and whatever runs. */
  close(): void {
    this.remote[releaseProxy]()
    this.worker.terminate()
  }
}

/** What `openEngine` takes. */
export interface EngineOptions {
  /** The device under the model was lost, and another one has taken over. */
  readonly onDeviceLost?: () => void
}

/** Starts the engine's Worker. Throws DeviceError where it cannot be started. */
export async function openEngine({ onDeviceLost = () => {} }: EngineOptions = {}): Promise<Engine> {
  carryErrors()
  const worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module', name: 'halfling' })
  const remote = wrap<EngineWorker>(worker)
  const failed = new Promise<never>((_, reject) => {
    worker.addEventListener('error', ({ message }) =>
      reject(new DeviceError(`the engine's Worker does not start (${message || 'its script cannot be loaded'})`)),
    )
  })
  await Promise.race([remote.watch(proxy(onDeviceLost)), failed])
  return new Engine(worker, remote)
}

/** The result of what gives one. */
async function only<T>(run: AsyncGenerator<T, void>): Promise<T> {
  const { value } = await run.next()
  await run.return()
  return value as T
}

/** What the worker hands out piece by piece. */
async function* iterate<T>(open: () => Promise<unknown>, signal?: AbortSignal): AsyncGenerator<T, void> {
  signal?.throwIfAborted()
  const stream = (await open()) as Remote<Stream<T>>
  const abort = () => void stream.abort()
  signal?.addEventListener('abort', abort)
  try {
    for (;;) {
      const { done, value } = (await stream.next()) as IteratorResult<T, void>
      if (done) return
      yield value as T
    }
  } catch (error) {
    throw signal?.aborted ? signal.reason : error
  } finally {
    signal?.removeEventListener('abort', abort)
    await stream.return()
    stream[releaseProxy]()
  }
}
