import type { FloatDType } from '../dtype.ts'
import { OptionError } from '../errors.ts'
import { adapterFiles } from '../formats/peft.ts'
import type { StoredModel } from '../formats/stored-model.ts'
import type { ModelDescription } from '../model/describe.ts'
import { adapterToPeft } from '../model/lora.ts'
import { mergedTensors } from '../model/merge.ts'
import type { Model } from '../model/model.ts'
import type { Precision } from '../model/precision.ts'
import { writeModel } from '../model/write.ts'
import { checkWord, shown } from '../options.ts'
import { type Store, storeAt, writeFiles } from '../store/store.ts'
import { type ChatMessage, type ChatTemplate, renderChat, requireChatTemplate } from '../text/chat-template.ts'
import { readConversation } from '../text/messages.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { type Completion, joined, type Piece } from './answer.ts'
import { checkGenerateOptions, type GenerateOptions, requestsOf } from './request.ts'
import { checkTokenIds } from './sampling.ts'
import { Scheduler } from './scheduler.ts'

/** Answers of one model that are asked for at the same time decode side by side, so many at most; more wait. */
const slots = 8

/** What `chat` takes. */
export interface ChatOptions extends GenerateOptions {
  /** JSON schemas of tools, handed to the chat template as transformers does. */
  readonly tools?: readonly unknown[]
  /** Tokens that the answer begins with already, such as those of one that was cut: the pieces are what comes after them. */
  readonly answerPrefix?: readonly number[]
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

/** The JSON that came with the weights; written out again beside weights that are saved. */
export type ModelFiles = Readonly<
  Pick<
    StoredModel,
    'config' | 'generationConfig' | 'tokenizerJson' | 'tokenizerConfig' | 'chatTemplate' | 'title' | 'license'
  >
>

/** A model with its tokenizer and chat template: what people talk to. `loadModel` makes one. */
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
  /** Of answers; that of rollouts is exact. */
  readonly precision: Precision
  /** What its files say of it. */
  readonly description: ModelDescription
  private readonly files: ModelFiles
  /** Prompt tokens that were computed rather than found in the cache, since the model was loaded. */
  prefilledTokens = 0
  private readonly scheduler: Scheduler
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
    description: ModelDescription,
    precision: Precision = {},
  ) {
    this.model = model
    this.tokenizer = tokenizer
    this.chatTemplate = chatTemplate
    this.generationConfig = generationConfig
    this.eosTokenIds = eosTokenIds
    this.files = files
    this.precision = precision
    this.description = description
    this.scheduler = new Scheduler(this, slots)
  }

  /**
   * Answers a conversation. Pieces come as they are made; the last one has a finishReason. The part of the conversation that
   * the last call has computed already is not computed again.
   *
   * @throws ContextError when the conversation does not fit, OptionError for options out of range
   */
  async *chat(messages: readonly ChatMessage[], options: ChatOptions = {}): AsyncGenerator<Piece, void> {
    const ids = this.chatPrompt(messages, options)
    const { tools: _, contextOverflow: __, templateOptions: ___, answerPrefix: prefix = [], ...rest } = options
    checkGenerateOptions(rest)
    yield* this.scheduler.pieces(requestsOf(this, [ids], rest, { isRead: true, prefix })[0])
  }

  /** The token ids of a conversation, with what the answer begins with. Applies contextOverflow. */
  chatPrompt(messages: readonly ChatMessage[], options: ChatOptions = {}): number[] {
    checkChatOptions(options)
    const template = requireChatTemplate(this.chatTemplate)
    const room = this.model.config.maxPositionEmbeddings
    const { answerPrefix = [] } = options
    checkTokenIds(answerPrefix, this.model.config.vocabSize, 'answerPrefix')
    // An answer without a limit finds a quarter of the context free.
    const reserve = Math.min(this.maxNewTokens(options) ?? room / 4, Math.floor(room / 2)) + answerPrefix.length
    let kept = readConversation(messages, 'messages')
    for (;;) {
      const text = renderChat(template, kept, {
        tools: options.tools,
        addGenerationPrompt: true,
        ...options.templateOptions,
      })
      const ids = this.tokenizer.encode(text)
      const whole = [...ids, ...answerPrefix]
      if (ids.length + reserve <= room || options.contextOverflow !== 'dropOldest') return whole
      const first = kept[0]?.role === 'system' ? 1 : 0
      // A turn is a user message with everything up to the next one.
      const next = kept.findIndex((m, i) => i > first && m.role === 'user')
      if (next < 0) return whole
      kept = [...kept.slice(0, first), ...kept.slice(next)]
    }
  }

  /**
   * Continues a raw prompt (text or token ids), without the chat template.
   *
   * @throws ContextError when the prompt fills the context, OptionError for an empty prompt or options out of range
   */
  async *generate(prompt: string | readonly number[], options: GenerateOptions = {}): AsyncGenerator<Piece, void> {
    checkGenerateOptions(options)
    const ids = typeof prompt === 'string' ? this.encodePrompt(prompt) : prompt
    const [request] = requestsOf(this, [ids], options, { isRead: true })
    yield* this.scheduler.pieces(request)
  }

  /** Runs `chat` or `generate` to its end. */
  static async complete(pieces: AsyncIterable<Piece>): Promise<Completion> {
    const all: Piece[] = []
    for await (const piece of pieces) all.push(piece)
    return joined(all)
  }

  /** A raw prompt's tokens, with the beginning-of-sequence token where the tokenizer adds one. */
  encodePrompt(text: string): number[] {
    return this.tokenizer.encode(text, { addSpecialTokens: true })
  }

  /** The limit of an answer, where the options or the model give one. @internal */
  maxNewTokens(options: GenerateOptions): number | undefined {
    const configured = this.generationConfig.max_new_tokens
    const n = options.maxNewTokens ?? (typeof configured === 'number' ? configured : undefined)
    if (n === undefined) return n
    if (!Number.isInteger(n) || n < 1) throw new OptionError(`maxNewTokens: ${n} is not a positive integer`)
    return n
  }

  /** Makes these loaded adapters active, in this order; an empty list disables all. An answer under way goes on with them. Throws OptionError for one that is not loaded, and while a training runs. */
  async setAdapters(names: readonly string[]): Promise<void> {
    this.checkIdle('setAdapters')
    await this.scheduler.between(() => this.model.setAdapters(names))
  }

  /**
   * Makes loaded adapters ready that each answer chooses from (`adapter`), in place of those that are active for all.
   *
   * @throws OptionError for fewer than two, for DoRA and modules_to_save, for one that is not loaded, and while a training runs
   */
  async setAdaptersByRow(names: readonly string[]): Promise<void> {
    this.checkIdle('setAdaptersByRow')
    await this.scheduler.between(() => this.model.setAdaptersByRow(names))
  }

  /** Gives a loaded adapter another name. Throws OptionError for one that is not loaded, or a name that is taken. */
  async renameAdapter(from: string, to: string): Promise<void> {
    this.checkIdle('renameAdapter')
    const { adapters } = this.model
    this.checkLoaded(from)
    if (adapters.has(to)) throw new OptionError(`adapter "${to}" is loaded already: give another name`)
    await this.scheduler.between(async () => {
      const { activeAdapters } = this.model
      // Its numbers come back to the host.
      await this.model.setAdapters(activeAdapters.filter((name) => name !== from))
      adapters.set(to, { ...adapters.get(from)!, name: to })
      adapters.delete(from)
      await this.model.setAdapters(activeAdapters.map((name) => (name === from ? to : name)))
    })
  }

  /** Forgets a loaded adapter. Throws OptionError for one that is not loaded. */
  async removeAdapter(name: string): Promise<void> {
    this.checkIdle('removeAdapter')
    this.checkLoaded(name)
    await this.scheduler.between(() => this.model.setAdapters(this.model.activeAdapters.filter((n) => n !== name)))
    this.model.adapters.delete(name)
  }

  private checkLoaded(name: string): void {
    if (!this.model.adapters.has(name)) throw new OptionError(`adapter "${name}" is not loaded`)
  }

  private checkIdle(what: string): void {
    if (this.model.isTraining) throw new OptionError(`${what}: a training runs, end it first`)
  }

  /**
   * Writes a loaded adapter as PEFT reads it into a folder, which is made where it is missing.
   *
   * @throws OptionError for one that is not loaded, HalflingError of code 'io'
   */
  async saveAdapter(name: string, folder: string | Store): Promise<void> {
    await writeFiles(await storeAt(folder), await this.peftFiles(name))
  }

  /**
   * The files of a loaded adapter as PEFT reads them, by name: what a page offers for download.
   *
   * @throws OptionError for one that is not loaded
   */
  async adapterFiles(name: string): Promise<Map<string, Blob>> {
    const files = await this.peftFiles(name)
    return new Map([...files].map(([file, chunks]) => [file, new Blob(chunks as Uint8Array<ArrayBuffer>[])]))
  }

  /** @internal */
  async peftFiles(name: string): Promise<Map<string, readonly Uint8Array[]>> {
    await this.model.pullAdapters()
    this.checkLoaded(name)
    const { config, tensors } = adapterToPeft(this.model.adapters.get(name)!, this.model.config)
    return adapterFiles(config, tensors)
  }

  /**
   * Writes the model with its active adapters merged in (in f32, then rounded) as `quantizeModel` does: an HF snapshot into a new
   * folder, or a .gguf file.
   *
   * @throws OptionError where there are files
   */
  async saveMerged(output: string | Store, dtype: FloatDType = 'bf16'): Promise<void> {
    await writeModel(await this.mergedModel(), await storeAt(output), { dtype })
  }

  /**
   * The model with its active adapters merged in, as if it lay on disk; its weights (f32) are computed when they are read. Of use
   * while the model is loaded.
   *
   * @internal
   */
  async mergedModel(): Promise<StoredModel> {
    const tensors = await mergedTensors(this.model)
    const config = { ...this.files.config, tie_word_embeddings: !tensors.has('lm_head.weight') }
    return { ...this.files, config, configFile: 'config.json', tensors, warnings: [] }
  }

  /** Frees the model's memory and its threads. The model cannot be used after it; a second call does nothing. */
  async close(): Promise<void> {
    if (this.closed) return
    this.closed = true
    this.scheduler.close()
    this.model.free()
    await this.model.target.close()
  }
}
