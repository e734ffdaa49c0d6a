import { byteLength, type DType } from './dtype.ts'
import { FormatError, OptionError } from './errors.ts'
import { compressedConfig, compressedTensor } from './formats/compressed.ts'
import { ggufTokenizerEntries, type TokenizerFrame } from './formats/gguf-tokenizer-write.ts'
import { ggufStream } from './formats/gguf-write.ts'
import { type ModelSource, openModelSource } from './formats/model-source.ts'
import { exists, writeAtomically, writeFolderAtomically } from './formats/node-file.ts'
import { safetensorsStream } from './formats/safetensors.ts'
import {
  convertedStream,
  type OnChunk,
  type PlainDType,
  type StoredTensor,
  type TensorStream,
} from './formats/stored.ts'
import { findModel } from './hub/models.ts'
import { type ModelConfig, parseConfig } from './model/config.ts'
import { ggufConfigEntries, ggufTensors } from './model/gguf.ts'
import { weightDType } from './model/model.ts'
import { findWeights } from './model/names.ts'
import { toFloats } from './quant/convert.ts'
import { loadChatTemplate } from './text/chat-template.ts'
import { checkVocabulary, loadTokenizer, type Tokenizer } from './text/tokenizer.ts'

/** Types in which a model can be written; q4 in GGUF alone. */
export type FileDType = Exclude<DType, 'i32'>

export interface QuantizeOptions {
  /** Of the matrices. */
  readonly dtype: FileDType
  /** Replace what is there; default false. */
  readonly force?: boolean
  readonly onProgress?: (progress: { readonly writtenBytes: number; readonly totalBytes: number }) => void
  /** Looked at between pieces of tensors; the call throws the signal's reason and leaves nothing behind. */
  readonly signal?: AbortSignal
}

/** What became of the weights of one kind. */
export interface QuantizedPart {
  readonly part: 'embedding' | 'attention' | 'mlp' | 'head' | 'vectors'
  readonly dtype: FileDType
  /** Numbers. */
  readonly weights: number
  /** Root of the mean square of what changed, as a share of the weights' own: 0.01 is 1%. */
  readonly relativeError: number
}

export interface QuantizeReport {
  readonly output: string
  /** Bytes of the weights before and after. */
  readonly inputBytes: number
  readonly outputBytes: number
  /** Of all weights. */
  readonly relativeError: number
  readonly parts: readonly QuantizedPart[]
}

/**
 * Writes a model anew with its weights in another type: as a GGUF file where `output` ends in .gguf, else as an HF folder (q8 as
 * compressed-tensors: int8 in groups of 32; token tables as f16, vectors as f32). Holds a piece of a tensor at a time, and needs no
 * device. What the source holds in the wanted type already stays as it is, bit for bit.
 *
 * @param source a model's name as `loadModel` takes it, or one that is open (and stays so)
 * @throws FormatError for broken or unsupported files and for weights that the type cannot hold, OptionError for a place that is taken
 *   and for q4 in a folder, HalflingError of code 'io' when it cannot be written
 */
export async function quantizeModel(
  source: string | ModelSource,
  output: string,
  options: QuantizeOptions,
): Promise<QuantizeReport> {
  if (typeof source !== 'string') return writeModel(source, output, options)
  const opened = await openModelSource(await findModel(source, { signal: options.signal }))
  try {
    return await writeModel(opened, output, options)
  } finally {
    await opened.close()
  }
}

async function writeModel(source: ModelSource, output: string, options: QuantizeOptions): Promise<QuantizeReport> {
  const config = parseConfig(source.config, source.configFile)
  const weights = findWeights(config, source.tensors, source.configFile)
  const tokenizer = loadTokenizer(source.tokenizerJson, source.tokenizerConfig)
  checkVocabulary(tokenizer, config.vocabSize)
  const tally = new Tally()
  if (/\.gguf$/i.test(output)) await writeGguf({ source, config, weights, tokenizer, tally }, output, options)
  else await writeFolder({ source, config, weights, tokenizer, tally }, output, options)
  return { output, ...tally.report() }
}

interface Parts {
  readonly source: ModelSource
  readonly config: ModelConfig
  readonly weights: ReadonlyMap<string, StoredTensor>
  readonly tokenizer: Tokenizer
  readonly tally: Tally
}

async function writeFolder(
  { source, config, weights, tally }: Parts,
  output: string,
  options: QuantizeOptions,
): Promise<void> {
  const { dtype } = options
  if (dtype === 'q4') throw new OptionError(`${output}: q4 is written as GGUF only: let the output end in .gguf`)
  const tensors: TensorStream<PlainDType>[] = []
  const ignored: string[] = config.tieWordEmbeddings ? ['lm_head'] : []
  for (const [name, tensor] of weights) {
    const type = typeInFolder(tensor, dtype)
    const add = tally.adder(name, tensor, type)
    if (type === 'q8') tensors.push(...compressedTensor(tensor, add))
    else {
      tensors.push(convertedStream(tensor, type, add))
      if (isLinear(tensor)) ignored.push(name.replace(/\.weight$/, ''))
    }
  }
  const { torch_dtype: _, ...ownConfig } = source.config
  const configJson = {
    ...ownConfig,
    dtype: configTypes[dtype],
    ...(dtype === 'q8' ? { quantization_config: compressedConfig(ignored) } : {}),
  }
  const json = (value: object) => [new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`)]
  const files = new Map<string, Iterable<Uint8Array> | AsyncIterable<Uint8Array>>([
    ['model.safetensors', safetensorsStream(watched(tensors, options), { format: 'pt' })],
    ['config.json', json(configJson)],
    ['generation_config.json', json(source.generationConfig)],
    ['tokenizer.json', json(source.tokenizerJson)],
    ['tokenizer_config.json', json(source.tokenizerConfig)],
  ])
  if (source.chatTemplate !== null) files.set('chat_template.jinja', [new TextEncoder().encode(source.chatTemplate)])
  await writeFolderAtomically(output, files, { force: options.force ?? false })
}

/** llama.cpp's names for what most of the tensors are. */
const fileTypes = { f32: 0, f16: 1, q4: 2, q8: 7, bf16: 32 } as const

async function writeGguf(
  { source, config, weights, tokenizer, tally }: Parts,
  output: string,
  options: QuantizeOptions,
): Promise<void> {
  const { dtype, force = false } = options
  if (!force && (await exists(output)))
    throw new OptionError(`${output}: is there already: give another name, or force`)
  const title = output
    .split(/[\\/]/)
    .at(-1)!
    .replace(/\.gguf$/i, '')
  const metadata = ggufConfigEntries(config)
  metadata.set('general.name', { string: title })
  metadata.set('general.file_type', { u32: fileTypes[dtype] })
  if (dtype === 'q8' || dtype === 'q4') metadata.set('general.quantization_version', { u32: 2 })
  const frame = tokenizerFrame(source, config, tokenizer)
  for (const [key, entry] of await ggufTokenizerEntries(source.tokenizerJson, frame)) metadata.set(key, entry)
  const template = loadChatTemplate(source.tokenizerConfig, source.chatTemplate ?? undefined)
  if (template?.sources.default !== undefined)
    metadata.set('tokenizer.chat_template', { string: template.sources.default })
  const tensors: TensorStream[] = []
  for (const [name, tensor] of ggufTensors(config, weights, source.configFile)) {
    const type = weightDType(name, tensor, dtype)
    tensors.push(convertedStream(tensor, type, tally.adder(name, tensor, type)))
  }
  await writeAtomically(output, ggufStream(metadata, watched(tensors, options)))
}

function tokenizerFrame(source: ModelSource, config: ModelConfig, tokenizer: Tokenizer): TokenizerFrame {
  const id = (key: string): number | undefined => {
    const value = source.config[key]
    return Number.isInteger(value) && (value as number) < config.vocabSize ? (value as number) : undefined
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

function typeInFolder({ name, shape }: StoredTensor, dtype: Exclude<FileDType, 'q4'>): Exclude<FileDType, 'q4'> {
  if (dtype !== 'q8') return dtype
  if (shape.length === 1) return 'f32'
  return isTable(name) || shape[1] % 32 !== 0 ? 'f16' : 'q8'
}

/** What the weights lose, counted as they are written. */
class Tally {
  private readonly parts = new Map<string, { part: QuantizedPart['part']; dtype: FileDType; sums: Sums }>()
  private readonly total: Sums = { weights: 0, squares: 0, errors: 0 }
  private inputBytes = 0
  private outputBytes = 0

  /** To be told of each piece of a tensor. */
  adder(name: string, tensor: StoredTensor, dtype: FileDType): OnChunk {
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
      for (const sum of [sums, this.total]) {
        sum.weights += before.length
        sum.squares += squares
        sum.errors += errors
      }
    }
  }

  report(): Omit<QuantizeReport, 'output'> {
    const { inputBytes, outputBytes, total } = this
    const parts = [...this.parts.values()].map(({ part, dtype, sums }) => ({
      part,
      dtype,
      weights: sums.weights,
      relativeError: relativeError(sums),
    }))
    return { inputBytes, outputBytes, relativeError: relativeError(total), parts }
  }
}

interface Sums {
  weights: number
  squares: number
  errors: number
}

const relativeError = ({ squares, errors }: Sums): number => (errors === 0 ? 0 : Math.sqrt(errors / squares))

function partOf(name: string, { shape }: StoredTensor): QuantizedPart['part'] {
  if (shape.length === 1) return 'vectors'
  if (isTable(name)) return name.startsWith('lm_head') ? 'head' : 'embedding'
  return name.includes('.mlp.') ? 'mlp' : 'attention'
}

/** The same tensors; writing them reports progress and stops at the signal. */
function watched<T extends TensorStream>(tensors: readonly T[], { onProgress, signal }: QuantizeOptions): T[] {
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
