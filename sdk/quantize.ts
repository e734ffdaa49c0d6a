import type { RowSource } from './data/rows.ts'
import { tokenizeRows } from './data/tokenize.ts'
import { openTarget } from './device.ts'
import type { FloatDType } from './dtype.ts'
import { DataError, OptionError } from './errors.ts'
import type { StoredModel } from './formats/stored-model.ts'
import { inputFactors } from './generate/moments.ts'
import { textWindows } from './generate/score.ts'
import { storedModel } from './hub/stored.ts'
import { parseConfig } from './model/config.ts'
import { Model } from './model/model.ts'
import { type Rounding, type WriteOptions, type WriteReport, writeModel } from './model/write.ts'
import { feedbackFloats } from './quant/feedback.ts'
import { type Source, type Store, storeAt } from './store/store.ts'
import { readText } from './store/text.ts'
import { loadChatTemplate } from './text/chat-template.ts'
import { loadTokenizer } from './text/tokenizer.ts'

export interface QuantizeOptions extends WriteOptions {
  /**
   * A text (.txt) or rows like those that the model is for: q4a and q4 are then rounded so that what its layers make of them changes
   * least (GPTQ), not the weights. Its first 8,192 tokens run through the model; 2,048 are needed.
   */
  readonly calibrationData?: RowSource
  /** Told how much of calibrationData has run through the model. */
  readonly onCalibration?: (progress: { readonly tokens: number; readonly totalTokens: number }) => void
}

/** What came of it, and where. */
export interface QuantizeReport extends WriteReport {
  readonly output: string
}

/** Of calibration data: tokens of a window, and of all of them. */
const [windowTokens, mostTokens, fewestTokens] = [512, 8192, 2048]

/**
 * Writes a model anew with its weights in another type: as a GGUF file where `output` ends in .gguf, else as an HF folder (q8 as
 * compressed-tensors: int8 in groups of 32; token tables as f16, vectors as f32). Holds a piece of a tensor at a time, and needs no
 * device but for calibrationData. What the source holds in the wanted type already stays as it is, bit for bit.
 *
 * @param model what `loadModel` takes, or a model that is open
 * @throws FormatError for broken or unsupported files and for weights that the type cannot hold, OptionError for a place that is taken
 *   and for q4a and q4 in a folder, DataError for calibration data that is too short, HalflingError of code 'io' when it cannot be written
 */
export async function quantizeModel(
  model: string | Source | StoredModel,
  output: string | Store,
  options: QuantizeOptions,
): Promise<QuantizeReport> {
  const store = await storeAt(output)
  const stored = await storedModel(model, options.signal)
  if (options.calibrationData === undefined)
    return { output: store.name, ...(await writeModel(stored, store, options)) }
  const { rounding, close } = await calibrated(stored, options.calibrationData, options)
  try {
    return { output: store.name, ...(await writeModel(stored, store, options, rounding)) }
  } finally {
    await close()
  }
}

/** Runs the data through the model, on the best device. */
async function calibrated(
  stored: StoredModel,
  data: RowSource,
  { dtype, tokenEmbeddingType, onCalibration, signal }: QuantizeOptions,
): Promise<{ rounding: Rounding; close(): Promise<void> }> {
  if (![dtype, tokenEmbeddingType].some(isFourBit))
    throw new OptionError(`calibrationData changes nothing for ${dtype}: it is for q4a and q4`)
  const config = parseConfig(stored.config, stored.configFile)
  const windows = await readWindows(stored, data, Math.min(windowTokens, config.maxPositionEmbeddings))
  const totalTokens = windows.flat().length
  const told = (windows: number) =>
    onCalibration?.({ tokens: Math.min(totalTokens, windows * windowTokens), totalTokens })
  const target = await openTarget()
  const close = () => target.close()
  try {
    // In q8 its inputs are the same but for a thousandth.
    const options = { dtype: 'q8', signal, onWarning: () => {}, onProgress: () => told(0) } as const
    const model = await Model.load(target, config, stored.tensors, stored.configFile, options)
    const factorsOf = await inputFactors(model, windows, { signal, onProgress: told })
    const rounding: Rounding = (name, dtype) => {
      const factors = isFourBit(dtype) ? factorsOf(name) : null
      return factors?.then((own) => (floats) => feedbackFloats(floats, dtype as 'q4', own))
    }
    return { rounding, close }
  } catch (error) {
    await close()
    throw error
  }
}

const isFourBit = (dtype?: FloatDType): boolean => dtype === 'q4a' || dtype === 'q4'

/** Windows of equal length. */
async function readWindows(stored: StoredModel, data: RowSource, length: number): Promise<number[][]> {
  const tokenizer = loadTokenizer(stored.tokenizerJson, stored.tokenizerConfig)
  const windows: number[][] = []
  if (typeof data === 'string' && /\.txt$/i.test(data)) {
    const text = await readText(await storeAt(data), '')
    if (text === null) throw new DataError(`${data}: no such file`)
    windows.push(...textWindows(tokenizer, text, length, mostTokens).map(({ inputIds }) => inputIds))
  } else {
    const template = loadChatTemplate(stored.tokenizerConfig, stored.chatTemplate ?? undefined)
    const ids: number[] = []
    for await (const { inputIds } of tokenizeRows(data, tokenizer, template, { maxLength: null })) {
      ids.push(...inputIds)
      if (ids.length >= mostTokens) break
    }
    for (let at = 0; at < Math.min(ids.length, mostTokens); at += length) windows.push(ids.slice(at, at + length))
  }
  const whole = windows.filter((window) => window.length === length)
  if (whole.length * length < fewestTokens)
    throw new DataError(
      `${typeof data === 'string' ? data : 'calibrationData'}: has ${windows.flat().length} tokens, give ${fewestTokens} or more`,
    )
  return whole
}
