import { allocate, type Memory, partOf, write } from '../../targets/onnx/memory.ts'
import { isQuantized } from '../dtype.ts'
import { FormatError, OptionError } from '../errors.ts'
import { convertedChunks, readFloats } from '../formats/stored.ts'
import type { StoredModel } from '../formats/stored-model.ts'
import { storedModel } from '../hub/stored.ts'
import { type ModelConfig, parseConfig } from '../model/config.ts'
import { findWeights } from '../model/names.ts'
import { askedDType } from '../model/weight-dtype.ts'
import { tokenizerFiles } from '../model/write.ts'
import { checkWord } from '../options.ts'
import { type Chunks, type Source, type Store, storeAt } from '../store/store.ts'
import { jsonChunks } from '../store/text.ts'
import { decoderGraph } from './decoder.ts'

/** Types of an exported model's matrices, and the files' names that transformers.js looks for. */
const onnxFiles = { f32: 'model.onnx', q4: 'model_q4.onnx', q8: 'model_quantized.onnx' } as const
export type OnnxDType = keyof typeof onnxFiles
export const onnxDTypes = Object.keys(onnxFiles) as OnnxDType[]

export interface ExportOptions {
  /** A file for each; default: q4. The vocabulary's tables are q8 beside q4. */
  readonly dtypes?: readonly OnnxDType[]
  /** Told after each piece of a file. */
  readonly onProgress?: (progress: { readonly file: string; readonly writtenBytes: number }) => void
  readonly signal?: AbortSignal
}

/**
 * Writes a model as a folder that transformers.js and onnxruntime-genai open: config, tokenizer and onnx/model*.onnx, with keys and values
 * in and out (GroupQueryAttention, MatMulNBits in blocks of 32). An adapter is merged first (`LanguageModel.mergedModel`).
 *
 * @param output a new folder
 * @returns the files of onnx/
 * @throws FormatError for broken or unsupported files and for more than 2 GB in one file, OptionError for a place that is taken,
 *   HalflingError of code 'io' when it cannot be written; nothing is half-written
 */
export async function exportOnnx(
  model: string | Source | StoredModel,
  output: string | Store,
  { dtypes = ['q4'], onProgress, signal }: ExportOptions = {},
): Promise<string[]> {
  for (const dtype of dtypes) checkWord(dtype, onnxDTypes, 'dtypes')
  if (dtypes.length === 0) throw new OptionError('dtypes: none is given')
  const store = await storeAt(output)
  if ((await store.list()).length > 0) throw new OptionError(`${store.name}: has files in it: give a new folder`)
  const stored = await storedModel(model, signal)
  const config = parseConfig(stored.config, stored.configFile)
  if (config.headDim % 16 !== 0)
    throw new FormatError(
      `${stored.configFile}: head_dim is ${config.headDim}, GroupQueryAttention of onnxruntime takes multiples of 16`,
    )
  // transformers.js reads no chat_template.jinja.
  const { chatTemplate, tokenizerConfig } = stored
  const withTemplate = { ...tokenizerConfig, ...(chatTemplate !== null && { chat_template: chatTemplate }) }
  const files = new Map<string, Chunks>(tokenizerFiles({ ...stored, tokenizerConfig: withTemplate }))
  files.set('genai_config.json', jsonChunks(genaiConfig(stored, config, dtypes[0])))
  for (const dtype of dtypes) {
    const file = `onnx/${onnxFiles[dtype]}`
    files.set(file, watched(onnxFile(stored, config, dtype, file), file, { onProgress, signal }))
  }
  files.set('config.json', jsonChunks(stored.config))
  await store.write('', files)
  return dtypes.map((dtype) => onnxFiles[dtype])
}

async function* watched(
  chunks: AsyncIterable<Uint8Array>,
  file: string,
  { onProgress, signal }: Pick<ExportOptions, 'onProgress' | 'signal'>,
): AsyncGenerator<Uint8Array> {
  let writtenBytes = 0
  for await (const bytes of chunks) {
    signal?.throwIfAborted()
    yield bytes
    writtenBytes += bytes.length
    onProgress?.({ file, writtenBytes })
  }
}

/** Reads one weight at a time. */
function onnxFile(
  stored: StoredModel,
  config: ModelConfig,
  dtype: OnnxDType,
  file: string,
): AsyncGenerator<Uint8Array> {
  const weights = findWeights(config, stored.tensors, stored.configFile)
  const types = new Map(
    [...weights].map(([name, { shape }]) => {
      const asked = askedDType(name, shape, dtype)
      // Rows that are no multiple of a block stay floats.
      return [name, { dtype: isQuantized(asked) ? asked : ('f32' as const), shape }]
    }),
  )
  let last: { name: string; memory: Memory } | null = null
  return decoderGraph(config, types).file(file, async ({ bound: name, part }) => {
    const [tensor, type] = [weights.get(name)!, types.get(name)!]
    if (type.dtype === 'f32') return (await readFloats(tensor)).slice().buffer
    if (last?.name !== name) {
      const memory = allocate(type)
      let at = 0
      for await (const bytes of convertedChunks(tensor, type.dtype)) {
        write(memory, at, bytes)
        at += bytes.length
      }
      last = { name, memory }
    }
    return partOf(last.memory, part)
  })
}

/** What onnxruntime-genai reads. */
function genaiConfig({ config: json, generationConfig }: StoredModel, config: ModelConfig, dtype: OnnxDType) {
  const token = (name: string) => generationConfig[name] ?? json[name]
  return {
    model: {
      bos_token_id: token('bos_token_id'),
      eos_token_id: token('eos_token_id'),
      pad_token_id: token('pad_token_id') ?? [token('eos_token_id')].flat()[0],
      context_length: config.maxPositionEmbeddings,
      type: json.model_type,
      vocab_size: config.vocabSize,
      decoder: {
        session_options: { provider_options: [] },
        filename: `onnx/${onnxFiles[dtype]}`,
        head_size: config.headDim,
        hidden_size: config.hiddenSize,
        num_attention_heads: config.numAttentionHeads,
        num_hidden_layers: config.numHiddenLayers,
        num_key_value_heads: config.numKeyValueHeads,
        inputs: {
          input_ids: 'input_ids',
          attention_mask: 'attention_mask',
          past_key_names: 'past_key_values.%d.key',
          past_value_names: 'past_key_values.%d.value',
        },
        outputs: { logits: 'logits', present_key_names: 'present.%d.key', present_value_names: 'present.%d.value' },
      },
    },
    search: { max_length: config.maxPositionEmbeddings, past_present_share_buffer: false },
  }
}
