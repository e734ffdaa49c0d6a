import { styleText } from 'node:util'
import type { Piece } from '../generate/answer.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import { ThinkDimmer } from './chat/think.ts'
import type { JsonFlag } from './options.ts'
import { formatNumber, formatRate, log, printJson } from './output.ts'
import { type Timed, timed } from './timing.ts'

const dim = (text: string): string =>
  process.stderr.isTTY && process.stderr.hasColors() ? styleText('dim', text) : text

/** What is told with an answer. */
interface Telling extends JsonFlag {
  readonly loadSeconds?: number
  readonly stats?: boolean
  /** The limit of its tokens, and how an answer that met it, or filled the context, can go on. */
  readonly limit: number | undefined
  readonly more: { readonly limit: string; readonly full: string }
}

/** How the answer of a command that gives one alone can go on. */
export const oneAnswer = { limit: ': --max-new-tokens gives it more', full: '' }

/** Prints one answer: as JSON at its end, or as it comes. */
export async function printAnswer(
  lm: LanguageModel,
  pieces: AsyncIterable<Piece>,
  { loadSeconds, json, stats = Boolean(process.stderr.isTTY), limit, more }: Telling,
): Promise<Timed> {
  const dimmer = process.stdout.isTTY && process.stdout.hasColors() ? new ThinkDimmer() : null
  const write = (text: string) => process.stdout.write(dimmer ? dimmer.push(text) : text)
  const answer = await timed(lm, pieces, json ? undefined : write).finally(() => {
    if (dimmer && !json) process.stdout.write(dimmer.end())
  })
  const { text, tokenIds, logProbs, finishReason, prefillTokensPerSecond, decodeTokensPerSecond } = answer
  if (json) {
    const timings = { loadSeconds, prefillTokensPerSecond, decodeTokensPerSecond }
    printJson({ text, tokenIds, logProbs, finishReason, device: lm.model.target.name, timings })
    return answer
  }
  process.stdout.write('\n')
  const speed = `${formatRate(decodeTokensPerSecond)} (prompt ${formatRate(prefillTokensPerSecond)})`
  if (stats) log(dim(`${tokenIds.length} tokens, ${speed}, ${finishReason}`))
  if (finishReason === 'length') {
    const room = formatNumber(lm.model.config.maxPositionEmbeddings)
    const isLimit = tokenIds.length === limit
    log(
      isLimit
        ? `(cut at the limit of ${formatNumber(limit)} tokens${more.limit})`
        : `(the context of ${room} tokens is full${more.full})`,
    )
  }
  return answer
}
