import { byteLength, type FloatDType, fitsBlocks, floatDTypes, isQuantized } from '../dtype.ts'
import { FormatError, OptionError } from '../errors.ts'
import { compressedConfig, compressedTensor } from '../formats/compressed.ts'
import { openGguf } from '../formats/gguf.ts'
import { ggufTokenizer } from '../formats/gguf-tokenizer.ts'
import { ggufTokenizerEntries, type TokenizerFrame } from '../formats/gguf-tokenizer-write.ts'
import { type GgufEntry, ggufHeader, ggufStream } from '../formats/gguf-write.ts'
import { safetensorsStream } from '../formats/safetensors.ts'
import {
  convertedStream,
  type Encode,
  layoutOf,
  type OnChunk,
  type PlainDType,
  type StoredDType,
  type StoredTensor,
  storedDType,
  type TensorStream,
} from '../formats/stored.ts'
import type { StoredModel } from '../formats/stored-model.ts'
import { checkWord } from '../options.ts'
import { toFloats } from '../quant/convert.ts'
import { bytesSource } from '../store/byte-source.ts'
import type { Chunks, Store } from '../store/store.ts'
import { jsonChunks, textChunks } from '../store/text.ts'
import { loadChatTemplate } from '../text/chat-template.ts'
import { checkVocabulary, loadTokenizer, type Tokenizer } from '../text/tokenizer.ts'
import { type ModelConfig, parseConfig } from './config.ts'
import { ggufConfigEntries, ggufTensors } from './gguf.ts'
import { findWeights } from './names.ts'
import { weightDType } from './weight-dtype.ts'

export interface WriteOptions {
  /** Of the matrices; q4a and q4 in GGUF alone. */
  readonly dtype: FloatDType
  /** Of the vocabulary's tables in GGUF; default: `dtype`, q8 for q4a and q4. */
  readonly tokenEmbeddingType?: FloatDType
  /** Replace what is there; default false. */
  readonly force?: boolean
  readonly onProgress?: (progress: { readonly writtenBytes: number; readonly totalBytes: number }) => void
  /** Looked at between pieces of tensors; the call throws the signal's reason and leaves nothing behind. */
  readonly signal?: AbortSignal
}

/** What became of the weights of one kind. */
export interface WrittenPart {
  readonly part: 'embedding' | 'attention' | 'mlp' | 'head' | 'vectors'
  readonly dtype: FloatDType
  /** Numbers. */
  readonly weights: number
  /** Root of the mean square of what changed, as a share of the weights' own: 0.01 is 1%. */
  readonly relativeError: number
}

export interface WriteReport {
  /** Bytes of the weights before and after. */
  readonly inputBytes: number
  readonly outputBytes: number
  /** Of all weights. */
  readonly relativeError: number
  readonly parts: readonly WrittenPart[]
  /** Weights that were quantized before and were rounded once more, with the types that they had; null: there are none. */
  readonly requantized: {
    readonly from: readonly StoredDType[]
    readonly weights: number
    readonly relativeError: number
  } | null
}

/** How the weight of a name is rounded to a type; undefined: as others are. */
export type Rounding = (name: string, dtype: FloatDType) => Promise<Encode> | undefined

/**
 * Writes a model into a place: as a GGUF file where its name ends in .gguf, else as an HF folder.
 *
 * @throws FormatError for weights that the type cannot hold, OptionError for a place that is taken and for q4a and q4 in a folder
 */
export async function writeModel(
  model: StoredModel,
  store: Store,
  options: WriteOptions,
  rounding?: Rounding,
): Promise<WriteReport> {
  const { dtype, tokenEmbeddingType, force } = options
  checkWord(dtype, floatDTypes, 'dtype')
  checkWord(tokenEmbeddingType, floatDTypes, 'tokenEmbeddingType')
  const config = parseConfig(model.config, model.configFile)
  const tokenizer = loadTokenizer(model.tokenizerJson, model.tokenizerConfig)
  checkVocabulary(tokenizer, config.vocabSize)
  const tally = new Tally()
  await checkFree(store, force)
  if (isGguf(store)) {
    const file = await ggufFile({ model, config, tokenizer, tally, rounding }, store.name, options)
    await store.write('', ifStillFree(file, store, force))
  } else {
    const files = snapshotFiles(model, options, tally)
    await store.write('', files.set('config.json', ifStillFree(files.get('config.json')!, store, force)))
  }
  return tally.report()
}

export const isGguf = ({ name }: Pick<Store, 'name'>): boolean => /\.gguf$/i.test(name)

/** Throws OptionError unless nothing would be lost by writing a model there. */
async function checkFree(store: Store, force = false): Promise<void> {
  const there = await store.list()
  if (there.length === 0) return
  const isFile = there[0].name === ''
  if (isGguf(store) && isFile && force) return
  if (isGguf(store)) throw new OptionError(`${store.name}: is there already: give another name, or force`)
  if (isFile) throw new OptionError(`${store.name}: is a file: give a new folder`)
  if (!force) throw new OptionError(`${store.name}: has files in it: give a new folder, or force`)
  if (!there.some(({ name }) => name === 'config.json') || there.some(({ kind }) => kind !== 'file'))
    throw new OptionError(`${store.name}: is not replaced, it holds more than a model: give a new folder`)
}

/** The last pieces of what is written: somebody may have put files there meanwhile. */
async function* ifStillFree(
  chunks: Chunks,
  store: Store,
  force: boolean | undefined,
): AsyncGenerator<Uint8Array, void> {
  yield* chunks
  await checkFree(store, force)
}

interface Parts {
  readonly model: StoredModel
  readonly config: ModelConfig
  readonly tokenizer: Tokenizer
  readonly tally: Tally
  readonly rounding?: Rounding
}

/** The files of an HF snapshot by name, config.json last. Throws OptionError for q4a and q4. */
export function snapshotFiles(model: StoredModel, options: WriteOptions, tally = new Tally()): Map<string, Chunks> {
  const { dtype, tokenEmbeddingType } = options
  if (dtype === 'q4a' || dtype === 'q4')
    throw new OptionError(`${dtype} is written as GGUF only: let the output end in .gguf`)
  if (tokenEmbeddingType !== undefined)
    throw new OptionError('tokenEmbeddingType is for GGUF only: let the output end in .gguf')
  const config = parseConfig(model.config, model.configFile)
  const tensors: TensorStream<PlainDType>[] = []
  const ignored: string[] = config.tieWordEmbeddings ? ['lm_head'] : []
  for (const [name, tensor] of findWeights(config, model.tensors, model.configFile)) {
    const type = typeInFolder(tensor, dtype)
    const add = tally.adder(name, tensor, type)
    if (type === 'q8') tensors.push(...compressedTensor(tensor, add))
    else {
      tensors.push(convertedStream(tensor, type, add))
      if (isLinear(tensor)) ignored.push(name.replace(/\.weight$/, ''))
    }
  }
  const { torch_dtype: _, ...ownConfig } = model.config
  const configJson = {
    ...ownConfig,
    dtype: configTypes[dtype],
    ...(dtype === 'q8' ? { quantization_config: compressedConfig(ignored) } : {}),
  }
  return new Map<string, Chunks>([
    ['model.safetensors', safetensorsStream(watched(tensors, options), { format: 'pt' })],
    ...tokenizerFiles(model),
    ['config.json', jsonChunks(configJson)],
  ])
}

/** What a folder has beside weights and config. */
export const tokenizerFiles = (model: StoredModel): [name: string, content: Chunks][] => [
  ['generation_config.json', jsonChunks(model.generationConfig)],
  ['tokenizer.json', jsonChunks(model.tokenizerJson)],
  ['tokenizer_config.json', jsonChunks(model.tokenizerConfig)],
  ...(model.chatTemplate === null ? [] : [['chat_template.jinja', textChunks(model.chatTemplate)] as [string, Chunks]]),
]

/** llama.cpp's names for what most of the tensors are. */
const fileTypes = { f32: 0, f16: 1, q4: 2, q4a: 3, q8: 7, bf16: 32 } as const

async function ggufFile(
  { model, config, tokenizer, tally, rounding }: Parts,
  output: string,
  options: WriteOptions,
): Promise<AsyncIterable<Uint8Array>> {
  const { dtype } = options
  const title = output
    .split(/[\\/]/)
    .at(-1)!
    .replace(/\.gguf$/i, '')
  const metadata = ggufConfigEntries(config)
  metadata.set('general.name', { string: title })
  metadata.set('general.file_type', { u32: fileTypes[dtype] })
  if (isQuantized(dtype)) metadata.set('general.quantization_version', { u32: 2 })
  const frame = tokenizerFrame(model, config, tokenizer)
  const entries = await ggufTokenizerEntries(model.tokenizerJson, frame)
  await checkReadAlike(tokenizer, entries)
  for (const [key, entry] of entries) metadata.set(key, entry)
  const template = loadChatTemplate(model.tokenizerConfig, model.chatTemplate ?? undefined)
  if (template?.sources.default !== undefined)
    metadata.set('tokenizer.chat_template', { string: template.sources.default })
  const tensors: TensorStream[] = []
  const weights = findWeights(config, model.tensors, model.configFile)
  for (const [name, tensor] of ggufTensors(config, weights, model.configFile)) {
    const type = (isTable(name) && tableType(tensor, options)) || weightDType(name, tensor, dtype)
    const round = rounding && (() => rounding(name, type))
    tensors.push(convertedStream(tensor, type, tally.adder(name, tensor, type), round))
  }
  return ggufStream(metadata, watched(tensors, options))
}

/** Where tokenizers differ: spaces, digits, cases, letters of two characters, what stands before and between added tokens. */
const probe = " Ab  don't DON'T x\t\n \r\n\n12345 ½ ²Ⅷ٣\u00a0\ufeff\u0085_-- e\u0301 ﬁ İ ç 漢字 🙂\u200d!?? \u0000 "

/** What GGUF has no place for is lost in silence: throws FormatError unless the tokenizer that is read again gives the same ids. */
async function checkReadAlike(tokenizer: Tokenizer, entries: ReadonlyMap<string, GgufEntry>): Promise<void> {
  const file = await openGguf(bytesSource('tokenizer.json', ggufHeader(entries)))
  const { tokenizerJson, tokenizerConfig } = ggufTokenizer(file)
  const again = loadTokenizer(tokenizerJson, tokenizerConfig)
  const added = [...tokenizer.specialIds].map((id) => tokenizer.idToToken(id)).join(probe)
  for (const text of [probe, probe.trim(), `${added} ${added}a`])
    if (String(again.encode(text)) !== String(tokenizer.encode(text)))
      throw new FormatError('tokenizer.json: GGUF cannot hold how it reads text: write a folder instead')
}

/** What is asked for, or what a table is already where that is the matrices' type. */
const tableType = (tensor: StoredTensor, { dtype, tokenEmbeddingType }: WriteOptions): FloatDType | undefined =>
  tokenEmbeddingType ?? (storedDType(tensor) === dtype ? dtype : undefined)

function tokenizerFrame(source: StoredModel, config: ModelConfig, tokenizer: Tokenizer): TokenizerFrame {
  const id = (key: string): number | undefined => {
    const value = source.config[key]
    return Number.isInteger(value) && (value as number) >= 0 && (value as number) < config.vocabSize
      ? (value as number)
      : undefined
  }
  const listed = [source.generationConfig.eos_token_id ?? source.config.eos_token_id ?? []].flat() as number[]
  const first = tokenizer.eosTokenId
  const eos = first !== undefined && (listed.length === 0 || listed.includes(first)) ? [first, ...listed] : listed
  const bos = tokenizer.bosTokenId ?? id('bos_token_id')
  const [plain, around] = [tokenizer.encode('a'), tokenizer.encode('a', { addSpecialTokens: true })]
  const addBos = bos !== undefined && around[0] === bos
  const addEos = eos.length > 0 && around.at(-1) === eos[0]
  if (around.length !== plain.length + Number(addBos) + Number(addEos))
    throw new FormatError('tokenizer.json: its post_processor adds more than bos and eos, which GGUF cannot hold')
  const padTokenId = tokenizer.padTokenId ?? id('pad_token_id')
  return { rows: config.vocabSize, bosTokenId: bos, padTokenId, eosTokenIds: [...new Set(eos)], addBos, addEos }
}

const configTypes = { q8: 'float16', f16: 'float16', bf16: 'bfloat16', f32: 'float32' } as const

const isTable = (name: string): boolean => name === 'model.embed_tokens.weight' || name === 'lm_head.weight'
/** As torch.nn has it: quantization_config speaks of these. */
const isLinear = ({ name, shape }: StoredTensor): boolean => shape.length === 2 && name !== 'model.embed_tokens.weight'

type FolderDType = Exclude<FloatDType, 'q4a' | 'q4'>

function typeInFolder({ name, shape }: StoredTensor, dtype: FolderDType): FolderDType {
  if (dtype !== 'q8') return dtype
  if (shape.length === 1) return 'f32'
  return isTable(name) || !fitsBlocks('q8', shape[1]) ? 'f16' : 'q8'
}

/** What the weights lose, counted as they are written. */
class Tally {
  private readonly parts = new Map<string, { part: WrittenPart['part']; dtype: FloatDType; sums: Sums }>()
  private readonly total: Sums = { weights: 0, squares: 0, errors: 0 }
  private readonly again: Sums = { weights: 0, squares: 0, errors: 0 }
  private readonly quantizedFrom = new Set<StoredDType>()
  private inputBytes = 0
  private outputBytes = 0

  /** To be told of each piece of a tensor. */
  adder(name: string, tensor: StoredTensor, dtype: FloatDType): OnChunk {
    this.inputBytes += tensor.bytes
    this.outputBytes += byteLength({ dtype, shape: tensor.shape })
    const part = partOf(name, tensor)
    const key = `${part} ${dtype}`
    if (!this.parts.has(key)) this.parts.set(key, { part, dtype, sums: { weights: 0, squares: 0, errors: 0 } })
    const { sums } = this.parts.get(key)!
    return (before, bytes) => {
      const after = toFloats(bytes, dtype)
      let [squares, errors] = [0, 0]
      for (let i = 0; i < before.length; i++) {
        squares += before[i] ** 2
        errors += (before[i] - after[i]) ** 2
      }
      if (!Number.isFinite(errors))
        throw new FormatError(
          `${tensor.file}: ${tensor.name}: has weights that are no numbers, or too large for ${dtype} (bf16 and f32 hold the largest)`,
        )
      const isAgain = errors > 0 && isQuantized(dtype) && layoutOf(tensor.dtype).elements > 1
      if (isAgain) this.quantizedFrom.add(tensor.dtype)
      for (const sum of isAgain ? [sums, this.total, this.again] : [sums, this.total]) {
        sum.weights += before.length
        sum.squares += squares
        sum.errors += errors
      }
    }
  }

  report(): WriteReport {
    const { inputBytes, outputBytes, total, again, quantizedFrom } = this
    const parts = [...this.parts.values()].map(({ part, dtype, sums }) => ({
      part,
      dtype,
      weights: sums.weights,
      relativeError: relativeError(sums),
    }))
    const requantized =
      again.weights === 0
        ? null
        : { from: [...quantizedFrom], weights: again.weights, relativeError: relativeError(again) }
    return { inputBytes, outputBytes, relativeError: relativeError(total), parts, requantized }
  }
}

interface Sums {
  weights: number
  squares: number
  errors: number
}

const relativeError = ({ squares, errors }: Sums): number => (errors === 0 ? 0 : Math.sqrt(errors / squares))

function partOf(name: string, { shape }: StoredTensor): WrittenPart['part'] {
  if (shape.length === 1) return 'vectors'
  if (isTable(name)) return name.startsWith('lm_head') ? 'head' : 'embedding'
  return name.includes('.mlp.') ? 'mlp' : 'attention'
}

/** The same tensors; writing them reports progress and stops at the signal. */
function watched<T extends TensorStream>(tensors: readonly T[], { onProgress, signal }: WriteOptions): T[] {
  const totalBytes = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0)
  let writtenBytes = 0
  return tensors.map((tensor) => ({
    ...tensor,
    async *chunks() {
      for await (const chunk of tensor.chunks()) {
        signal?.throwIfAborted()
        yield chunk
        writtenBytes += chunk.length
        onProgress?.({ writtenBytes, totalBytes })
      }
    },
  }))
}
