import { styleText } from 'node:util'
import type { LanguageModel, Piece } from '../generate/language-model.ts'
import { ThinkDimmer } from './chat/think.ts'
import { formatRate, log, printJson } from './output.ts'
import { type Timed, timed } from './timing.ts'

const dim = (text: string): string =>
  process.stderr.isTTY && process.stderr.hasColors() ? styleText('dim', text) : text

/** Prints one answer: as JSON at its end, or as it comes. */
export async function printAnswer(
  lm: LanguageModel,
  pieces: AsyncIterable<Piece>,
  loadSeconds: number,
  json: boolean | undefined,
  stats = Boolean(process.stderr.isTTY),
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
  return answer
}
