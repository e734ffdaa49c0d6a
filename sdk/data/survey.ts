import { DataError } from '../errors.ts'
import type { ChatTemplate } from '../text/chat-template.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { readContent } from './columns.ts'
import { packBins, scoredTokens } from './pack.ts'
import { type RowSource, readRows } from './rows.ts'
import { type Example, rowTokenizer, type TokenizeOptions } from './tokenize.ts'

export interface SurveyOptions extends Omit<TokenizeOptions, 'warn'> {
  readonly maxLength?: number
  readonly packing?: boolean
  readonly onProgress?: (rows: number) => void
  readonly signal?: AbortSignal
}

/** What training would see of a data set. */
export interface Survey {
  readonly rows: number
  /** Rows by what they say: messages, completion, chatCompletion, text, question. */
  readonly kinds: Readonly<Record<string, number>>
  /** Rows that cannot be used, and the first few reasons. */
  readonly refused: number
  readonly refusals: readonly string[]
  /** Rows longer than maxLength: they lose their end, are left out, or are an error (truncationMode). */
  readonly tooLong: number
  /** Length in tokens of every usable row, before truncation. */
  readonly lengths: readonly number[]
  /** Of all usable rows as they are trained on. */
  readonly tokens: number
  readonly scoredTokens: number
  /** With packing: sequences of at most maxLength tokens, and the share of them that is filled. */
  readonly packed: { readonly bins: number; readonly fill: number } | null
  readonly warnings: readonly string[]
  /** The first rows as they are trained on. */
  readonly examples: readonly Example[]
}

/** Goes through all rows as a trainer would, with the first `show` examples kept. No model is needed, nor a device. */
export async function surveyRows(
  source: RowSource,
  tokenizer: Tokenizer,
  chatTemplate: ChatTemplate | null,
  show: number,
  { maxLength = 1024, packing = false, onProgress, signal, ...options }: SurveyOptions = {},
): Promise<Survey> {
  const warnings: string[] = []
  const tokenize = rowTokenizer(tokenizer, chatTemplate, {
    ...options,
    maxLength: null,
    warn: (message) => warnings.push(message),
  })
  const kinds: Record<string, number> = {}
  const refusals: string[] = []
  const lengths: number[] = []
  const examples: Example[] = []
  const kept: Example[] = []
  const seen = new Set<string>()
  let [rows, refused, tooLong, tokens, scored, duplicates, doubled] = [0, 0, 0, 0, 0, 0, 0]
  for await (const row of readRows(source)) {
    signal?.throwIfAborted()
    rows++
    onProgress?.(rows)
    let example: Example
    try {
      const { kind } = readContent(row, options.columns)
      kinds[kind] = (kinds[kind] ?? 0) + 1
      example = tokenize(row)!
    } catch (error) {
      if (!(error instanceof DataError)) throw error
      refused++
      if (refusals.length < 5) refusals.push(error.message)
      continue
    }
    lengths.push(example.inputIds.length)
    const text = example.inputIds.join()
    if (seen.has(text)) duplicates++
    else seen.add(text)
    const [first, second] = example.inputIds
    if (first === second && first === tokenizer.bosTokenId) doubled++
    if (example.inputIds.length > maxLength) {
      tooLong++
      if (options.truncationMode !== undefined && options.truncationMode !== 'keep_start') continue
      const [inputIds, labels] = [example.inputIds.slice(0, maxLength), example.labels.slice(0, maxLength)]
      example = { ...example, inputIds, labels }
      if (scoredTokens(example) === 0) {
        refused++
        if (refusals.length < 5) refusals.push(`${row.place}: nothing is scored in its first ${maxLength} tokens`)
        continue
      }
    }
    tokens += example.inputIds.length
    scored += scoredTokens(example)
    if (examples.length < show) examples.push(example)
    if (packing) kept.push(example)
  }
  if (duplicates > 0) warnings.push(`${duplicates} of the rows say what an earlier one says`)
  if (doubled > 0) warnings.push(`${doubled} of the rows begin with ${JSON.stringify(tokenizer.bosToken)} twice`)
  const bins = packing ? packBins(kept, maxLength).length : 0
  return {
    rows,
    kinds,
    refused,
    refusals,
    tooLong,
    lengths,
    tokens,
    scoredTokens: scored,
    packed: packing ? { bins, fill: bins === 0 ? 0 : tokens / (bins * maxLength) } : null,
    warnings,
    examples,
  }
}
