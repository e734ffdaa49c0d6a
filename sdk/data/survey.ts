import { DataError } from '../errors.ts'
import type { ChatTemplate } from '../text/chat-template.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { readContent } from './columns.ts'
import { datasetHash } from './dataset-hash.ts'
import { notScored, packBins, scoredTokens, truncated } from './pack.ts'
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
  let [rows, refused, tooLong, tokens, scored] = [0, 0, 0, 0, 0]
  const oddities = new Map<string, { count: number; first: string }>()
  const notice = (oddity: string, place: string) => {
    const known = oddities.get(oddity)
    oddities.set(oddity, { count: (known?.count ?? 0) + 1, first: known?.first ?? place })
  }
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
    const hash = datasetHash([example])
    if (seen.has(hash)) notice('said by an earlier row', row.place)
    else seen.add(hash)
    for (const oddity of odditiesOf(example, tokenizer)) notice(oddity, row.place)
    if (example.inputIds.length > maxLength) {
      tooLong++
      if (options.truncationMode !== undefined && options.truncationMode !== 'keep_start') continue
      example = truncated(example, maxLength)
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
  for (const [oddity, { count, first }] of oddities)
    warnings.push(`${count} ${count === 1 ? 'row is' : 'rows are'} ${oddity} (${first}${count > 1 ? ', ...' : ''})`)
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

/** What is worth a look in a row before it is cut, each after "the row is". */
function odditiesOf({ inputIds, labels }: Example, tokenizer: Tokenizer): Set<string> {
  const found = new Set<string>()
  const { specialIds, eosTokenId } = tokenizer
  for (let t = 1; t < inputIds.length; t++)
    if (inputIds[t] === inputIds[t - 1] && specialIds.has(inputIds[t]))
      found.add(`with ${tokenizer.idToToken(inputIds[t])} twice in a row`)
  const learned = labels.filter((label) => label !== notScored)
  const said = learned.filter((id) => !specialIds.has(id))
  if (tokenizer.decode(said).trim() === '') found.add('without a word that is scored: an empty completion')
  if (eosTokenId !== undefined && !learned.includes(eosTokenId))
    found.add(`without a scored ${tokenizer.eosToken}: the model does not learn where to stop`)
  if (control.test(tokenizer.decode(inputIds)))
    found.add('with control characters or U+FFFD, which broken encodings leave')
  return found
}

/** Without tab, line feed, form feed and carriage return. */
const control = /(?![\t\n\f\r])\p{Cc}|\ufffd/u
