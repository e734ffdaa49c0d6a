import { ContextError, DataError, OptionError } from '../errors.ts'
import type { ModelSource } from '../formats/model-source.ts'
import { adapterFiles, writeAdapterFiles } from '../formats/peft.ts'
import { adapterToPeft } from '../model/lora.ts'
import { type MergedDType, mergedStored, saveMerged } from '../model/merge.ts'
import type { Model } from '../model/model.ts'
import { checkKeys, checkWord, shown } from '../options.ts'
import { type ChatMessage, type ChatTemplate, renderChat, requireChatTemplate } from '../text/chat-template.ts'
import { DecodeStream } from '../text/decode-stream.ts'
import { StopStrings } from '../text/stop.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { KeyValueCache } from './cache.ts'
import { decode, prefill, type Sampled, type Sequence, type TopLogProbs } from './engine.ts'
import { checkTokenIds, resolveSampling, type SamplingOptions, samplingNumbers } from './sampling.ts'

/** What `generate` takes. */
export interface GenerateOptions extends SamplingOptions {
  /** At most so many tokens, 1 or more; cut to what the context leaves. Default: generation_config.json's, then 256. */
  readonly maxNewTokens?: number
  /** Text at which the answer ends; it is not part of the answer. */
  readonly stop?: readonly string[]
  /** So many of the likeliest tokens with each token, 0 (default) to 64: `top` of the pieces. `chat` and `generate` alone. */
  readonly topLogProbs?: number
  /** Checked between the nodes of a step; the iteration throws the signal's reason. */
  readonly signal?: AbortSignal
}

/** Throws OptionError for an option of an unknown name, or of the wrong kind. */
export function checkGenerateOptions(options: GenerateOptions, more: readonly string[] = []): void {
  checkKeys(
    options,
    [...samplingNumbers, 'logitBias', 'maxNewTokens', 'stop', 'topLogProbs', 'signal', ...more],
    'options',
  )
  const { stop = [], signal } = options
  if (!(Array.isArray(stop) && stop.every((text) => typeof text === 'string')))
    throw new OptionError('stop: wanted a list of strings')
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new OptionError(`signal: wanted an AbortSignal, got ${shown(signal)}`)
}

/** What `chat` takes. */
export interface ChatOptions extends GenerateOptions {
  /** JSON schemas of tools, handed to the chat template as transformers does. */
  readonly tools?: readonly unknown[]
  /** When a conversation outgrows the context: an error (default), or forget the oldest turns after the system message. */
  readonly contextOverflow?: 'error' | 'dropOldest'
  /** Further variables of the template, `enable_thinking` for instance. */
  readonly templateOptions?: Readonly<Record<string, unknown>>
}

/** Throws OptionError; names are `generate`'s matter. */
function checkChatOptions(options: ChatOptions): void {
  if (typeof options !== 'object' || options === null)
    throw new OptionError(`options: wanted an object, got ${shown(options)}`)
  checkWord(options.contextOverflow, ['error', 'dropOldest'], 'contextOverflow')
  if (options.tools !== undefined && options.tools !== null && !Array.isArray(options.tools))
    throw new OptionError(`tools: wanted a list of JSON schemas, got ${shown(options.tools)}`)
}

/** Throws DataError unless these are messages; what they say is the template's matter. */
function checkMessages(messages: readonly ChatMessage[]): void {
  if (!Array.isArray(messages))
    throw new DataError(`messages: wanted a list of {role, content}, got ${shown(messages)}`)
  for (const [i, message] of messages.entries()) {
    const { role, content } = message ?? {}
    if (typeof role !== 'string') throw new DataError(`message ${i}: its role is ${shown(role)}, not a string`)
    if (content !== undefined && content !== null && typeof content !== 'string' && !Array.isArray(content))
      throw new DataError(`message ${i}: its content is ${shown(content)}, not a string`)
  }
}

/** `stop`: an end token, or a text of `stop`. `length`: maxNewTokens, or the context is full. */
export type FinishReason = 'stop' | 'length'

/** A part of an answer: text as soon as its characters are whole, with the tokens that came since the last piece. */
export interface Piece {
  readonly text: string
  readonly tokenIds: readonly number[]
  /** Natural logarithms, one a token. */
  readonly logProbs: readonly number[]
  /** With `topLogProbs`: one a token. */
  readonly top?: readonly TopLogProbs[]
  /** On the last piece. */
  readonly finishReason?: FinishReason
}

/** A whole answer. */
export interface Completion {
  /** Without special tokens. */
  readonly text: string
  /** With the end token. */
  readonly tokenIds: number[]
  /** Natural logarithms, one a token, at the temperature used and before top-k, top-p and min-p. */
  readonly logProbs: number[]
  readonly finishReason: FinishReason
}

/** The JSON that came with the weights; written out again beside weights that are saved. */
export type ModelFiles = Readonly<
  Pick<ModelSource, 'config' | 'generationConfig' | 'tokenizerJson' | 'tokenizerConfig' | 'chatTemplate'>
>

/**
 * A model with its tokenizer and chat template: what people talk to. `loadModel` makes one. Generations of one model run one
 * after another.
 */
export class LanguageModel {
  /** The weights on their device: `model.config`, `model.target.info`. */
  readonly model: Model
  readonly tokenizer: Tokenizer
  /** null: a base model without one; `chat` then throws OptionError. */
  readonly chatTemplate: ChatTemplate | null
  /** generation_config.json as it stands. */
  readonly generationConfig: Readonly<Record<string, unknown>>
  /** Tokens that end an answer. */
  readonly eosTokenIds: ReadonlySet<number>
  private readonly files: ModelFiles
  /** Prompt tokens that were computed rather than found in the cache, since the model was loaded. */
  prefilledTokens = 0
  private readonly cache: KeyValueCache
  /** What the chat's cache holds, so that the next turn computes only what is new. */
  private cachedIds: number[] = []
  private cachedAdapters = ''
  private busy: Promise<void> = Promise.resolve()
  private closed = false
  /** Whether `close` was called. */
  get isClosed(): boolean {
    return this.closed
  }

  /** @internal */
  constructor(
    model: Model,
    tokenizer: Tokenizer,
    chatTemplate: ChatTemplate | null,
    generationConfig: Readonly<Record<string, unknown>>,
    eosTokenIds: ReadonlySet<number>,
    files: ModelFiles,
  ) {
    this.model = model
    this.tokenizer = tokenizer
    this.chatTemplate = chatTemplate
    this.generationConfig = generationConfig
    this.eosTokenIds = eosTokenIds
    this.files = files
    this.cache = new KeyValueCache(model, 1)
  }

  /**
   * Answers a conversation. Pieces come as they are made; the last one has a finishReason. The part of the conversation that
   * the last call has computed already is not computed again.
   *
   * @throws ContextError when the conversation does not fit, OptionError for options out of range
   */
  async *chat(messages: readonly ChatMessage[], options: ChatOptions = {}): AsyncGenerator<Piece, void> {
    yield* this.generate(this.chatPrompt(messages, options), options)
  }

  /** The token ids of a conversation, ready for the answer. Applies contextOverflow. */
  chatPrompt(messages: readonly ChatMessage[], options: ChatOptions = {}): number[] {
    checkChatOptions(options)
    checkMessages(messages)
    const template = requireChatTemplate(this.chatTemplate)
    const room = this.model.config.maxPositionEmbeddings
    const reserve = Math.min(this.maxNewTokens(options), Math.floor(room / 2))
    let kept = [...messages]
    for (;;) {
      const text = renderChat(template, kept, {
        tools: options.tools,
        addGenerationPrompt: true,
        ...options.templateOptions,
      })
      const ids = this.tokenizer.encode(text)
      if (ids.length + reserve <= room || options.contextOverflow !== 'dropOldest') return ids
      const first = kept[0]?.role === 'system' ? 1 : 0
      // A turn is a user message with everything up to the next one.
      const next = kept.findIndex((m, i) => i > first && m.role === 'user')
      if (next < 0) return ids
      kept = [...kept.slice(0, first), ...kept.slice(next)]
    }
  }

  /**
   * Continues a raw prompt (text or token ids), without the chat template.
   *
   * @throws ContextError when the prompt fills the context, OptionError for an empty prompt or options out of range
   */
  async *generate(prompt: string | readonly number[], options: GenerateOptions = {}): AsyncGenerator<Piece, void> {
    checkGenerateOptions(options, ['tools', 'contextOverflow', 'templateOptions'])
    const ids = typeof prompt === 'string' ? this.encodePrompt(prompt) : prompt
    checkTokenIds(ids, this.model.config.vocabSize, 'prompt')
    if (ids.length === 0) throw new OptionError('prompt: it has no tokens')
    const { vocabSize } = this.model.config
    checkTokenIds(Object.keys(options.logitBias ?? {}).map(Number), vocabSize, 'logitBias')
    const { topLogProbs = 0 } = options
    if (!(Number.isInteger(topLogProbs) && topLogProbs >= 0 && topLogProbs <= Math.min(64, vocabSize)))
      throw new OptionError(`topLogProbs: ${topLogProbs} is not an integer from 0 to ${Math.min(64, vocabSize)}`)
    const room = this.model.config.maxPositionEmbeddings
    if (ids.length >= room)
      throw new ContextError(
        `the prompt has ${ids.length} tokens, the model's context is ${room}: shorten it, or use contextOverflow: 'dropOldest' in a chat`,
      )
    const sequence: Sequence = {
      slot: 0,
      sampling: resolveSampling(options, this.generationConfig),
      stream: [0, 0],
      cached: 0,
      seen: new Set(ids),
      counts: new Map(),
      topLogProbs: options.topLogProbs ?? 0,
    }
    const release = await this.lock()
    try {
      options.signal?.throwIfAborted()
      const next = await this.prefillPrompt(sequence, ids, options.signal)
      const budget = Math.min(this.maxNewTokens(options), room - ids.length)
      yield* this.answer(sequence, next, budget, options)
    } finally {
      release()
    }
  }

  /** Runs `chat` or `generate` to its end. */
  static async complete(pieces: AsyncIterable<Piece>): Promise<Completion> {
    const all: Piece[] = []
    for await (const piece of pieces) all.push(piece)
    return {
      text: all.map((p) => p.text).join(''),
      tokenIds: all.flatMap((p) => p.tokenIds),
      logProbs: all.flatMap((p) => p.logProbs),
      finishReason: all.at(-1)!.finishReason!,
    }
  }

  /** A raw prompt's tokens, with the beginning-of-sequence token where the tokenizer adds one. */
  encodePrompt(text: string): number[] {
    return this.tokenizer.encode(text, { addSpecialTokens: true })
  }

  /** @internal */
  maxNewTokens(options: GenerateOptions): number {
    const configured = this.generationConfig.max_new_tokens
    const n = options.maxNewTokens ?? (typeof configured === 'number' ? configured : 256)
    if (!Number.isInteger(n) || n < 1) throw new OptionError(`maxNewTokens: ${n} is not a positive integer`)
    return n
  }

  /**
   * Contents of the files of an HF snapshot beside its weights. `dtype` as in config.json.
   *
   * @internal
   */
  configFiles({ dtype }: { dtype: string }): Map<string, string> {
    const { config, generationConfig, tokenizerJson, tokenizerConfig, chatTemplate } = this.files
    const json = (value: object) => `${JSON.stringify(value, null, 2)}\n`
    return new Map([
      ['config.json', json({ ...config, dtype })],
      ['generation_config.json', json(generationConfig)],
      ['tokenizer.json', json(tokenizerJson)],
      ['tokenizer_config.json', json(tokenizerConfig)],
      ...(chatTemplate === null ? [] : ([['chat_template.jinja', chatTemplate]] as const)),
    ])
  }

  /** Makes these loaded adapters active, in this order; an empty list disables all. Throws OptionError for one that is not loaded. */
  setAdapters(names: readonly string[]): Promise<void> {
    return this.model.setAdapters(names)
  }

  /**
   * Writes a loaded adapter as PEFT reads it into a folder, which is made where it is missing.
   *
   * @throws OptionError for one that is not loaded, HalflingError of code 'io'
   */
  async saveAdapter(name: string, folder: string): Promise<void> {
    const { config, tensors } = await this.peftAdapter(name)
    await writeAdapterFiles(folder, config, tensors)
  }

  /**
   * The files of a loaded adapter as PEFT reads them, by name: what a page offers for download.
   *
   * @throws OptionError for one that is not loaded
   */
  async adapterFiles(name: string): Promise<Map<string, Blob>> {
    const { config, tensors } = await this.peftAdapter(name)
    const files = adapterFiles(config, tensors)
    return new Map([...files].map(([file, chunks]) => [file, new Blob(chunks as Uint8Array<ArrayBuffer>[])]))
  }

  private async peftAdapter(name: string): Promise<ReturnType<typeof adapterToPeft>> {
    await this.model.pullAdapters()
    const adapter = this.model.adapters.get(name)
    if (!adapter) throw new OptionError(`adapter "${name}" is not loaded`)
    return adapterToPeft(adapter, this.model.config)
  }

  /**
   * Writes the model with its active adapters merged in as an HF snapshot into a new folder.
   *
   * @throws OptionError where there are files
   */
  saveMerged(folder: string, dtype: MergedDType = 'BF16'): Promise<void> {
    return saveMerged(this.model, folder, this.configFiles({ dtype }), dtype)
  }

  /**
   * The model with its active adapters merged in, as if it lay on disk; its weights (f32) are computed when they are read. Of use
   * while the model is loaded.
   *
   * @internal
   */
  async mergedSource(): Promise<ModelSource> {
    const tensors = await mergedStored(this.model)
    const config = { ...this.files.config, tie_word_embeddings: !tensors.has('lm_head.weight') }
    return { ...this.files, config, configFile: 'config.json', tensors, close: async () => {} }
  }

  /** Takes the chat's cache as far as it agrees with the prompt and computes the rest. */
  private async prefillPrompt(sequence: Sequence, ids: readonly number[], signal?: AbortSignal): Promise<Sampled> {
    // Numbers of another adapter are of no use.
    const adapters = `${this.model.version} ${this.model.activeAdapters.join(' ')} ${this.model.numbersVersion}`
    if (adapters !== this.cachedAdapters) this.cachedIds = []
    this.cachedAdapters = adapters
    let common = 0
    while (common < ids.length - 1 && common < this.cachedIds.length && ids[common] === this.cachedIds[common]) common++
    sequence.cached = common
    this.cachedIds.length = common
    const fresh = ids.slice(common)
    try {
      return await prefill(this.model, this.cache, sequence, fresh, signal)
    } finally {
      this.cachedIds.push(...fresh.slice(0, sequence.cached - common))
      this.prefilledTokens += sequence.cached - common
    }
  }

  private async *answer(
    sequence: Sequence,
    first: Sampled,
    budget: number,
    options: GenerateOptions,
  ): AsyncGenerator<Piece, void> {
    const stream = new DecodeStream(this.tokenizer)
    const stops = new StopStrings(options.stop ?? [])
    let pending: Sampled[] = []
    const piece = (text: string, finishReason?: FinishReason): Piece => {
      const since = pending
      pending = []
      return {
        text,
        tokenIds: since.map((s) => s.id),
        logProbs: since.map((s) => s.logProb),
        ...(options.topLogProbs && { top: since.map((s) => s.top!) }),
        ...(finishReason && { finishReason }),
      }
    }
    let next = first
    for (let n = 1; ; n++) {
      pending.push(next)
      sequence.seen.add(next.id)
      sequence.counts.set(next.id, (sequence.counts.get(next.id) ?? 0) + 1)
      if (this.eosTokenIds.has(next.id)) {
        yield piece(stops.push(stream.flush()).text + stops.flush(), 'stop')
        return
      }
      const { text, stopped } = stops.push(stream.push(next.id))
      if (stopped) {
        yield piece(text, 'stop')
        return
      }
      if (n === budget) {
        const rest = stops.push(stream.flush())
        yield piece(text + rest.text + (rest.stopped ? '' : stops.flush()), rest.stopped ? 'stop' : 'length')
        return
      }
      if (text !== '') yield piece(text)
      const fed = next.id
      ;[next] = await decode(this.model, this.cache, [sequence], [fed], options.signal)
      this.cachedIds.push(fed)
    }
  }

  /** One generation at a time: they share the chat's cache. */
  private async lock(): Promise<() => void> {
    if (this.closed) throw new OptionError('this model is closed: load it again')
    const before = this.busy
    let release = () => {}
    this.busy = new Promise((resolve) => {
      release = resolve
    })
    await before
    return release
  }

  /** Frees the model's memory and its threads. The model cannot be used after it; a second call does nothing. */
  async close(): Promise<void> {
    if (this.closed) return
    this.closed = true
    this.cache.free()
    this.model.free()
    await this.model.target.close()
  }
}
