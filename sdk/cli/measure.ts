import type { LanguageModel } from '../generate/language-model.ts'
import { randomBits } from '../random.ts'
import { SFTTrainer } from '../train/sft.ts'
import { timed } from './timing.ts'

// Speeds of a loaded model in tokens/s. What compiles is run once before it is timed.

/** Random tokens, other ones for each seed, so that nothing is found in the cache. */
const randomPrompt = (lm: LanguageModel, tokens: number, seed: number): number[] =>
  Array.from({ length: tokens }, (_, i) => randomBits(seed, i) % lm.tokenizer.vocabSize)

/** An answer of exactly `tokens` tokens to a random prompt, and the seconds that it took. */
async function answer(lm: LanguageModel, promptTokens: number, tokens: number, seed: number, signal?: AbortSignal) {
  const logitBias = Object.fromEntries([...lm.eosTokenIds].map((id) => [id, Number.NEGATIVE_INFINITY]))
  const prompt = randomPrompt(lm, promptTokens, seed)
  const options = { maxNewTokens: tokens, temperature: 0, repetitionPenalty: 1, logitBias, signal }
  const start = performance.now()
  const { decodeTokensPerSecond } = await timed(lm, lm.generate(prompt, options))
  return { seconds: (performance.now() - start) / 1000, decodeTokensPerSecond }
}

/** The first token included. The best of three runs. */
export async function measurePrefill(lm: LanguageModel, promptTokens: number, signal?: AbortSignal): Promise<number> {
  await answer(lm, promptTokens, 1, 0, signal)
  let best = Number.POSITIVE_INFINITY
  for (let run = 1; run <= 3; run++) best = Math.min(best, (await answer(lm, promptTokens, 1, run, signal)).seconds)
  return promptTokens / best
}

/** One sequence, after a prompt of 16 tokens. */
export async function measureDecode(lm: LanguageModel, tokens: number, signal?: AbortSignal): Promise<number> {
  await answer(lm, 16, 2, 10, signal)
  const { seconds, decodeTokensPerSecond } = await answer(lm, 16, tokens + 1, 11, signal)
  // null: all tokens came in one piece of text.
  return decodeTokensPerSecond ?? (tokens + 1) / seconds
}

/** LoRA (rank 16, all linear modules) with recomputation, on one row of `tokens` tokens, all scored. */
export async function measureTraining(
  lm: LanguageModel,
  tokens: number,
  steps: number,
  signal?: AbortSignal,
): Promise<number> {
  const trainer = new SFTTrainer({
    model: lm,
    trainDataset: [{ text: textOf(lm, tokens) }],
    peft: { r: 16, loraAlpha: 32, targetModules: 'all-linear' },
    args: { outputDir: null, maxSteps: steps + 1, perDeviceTrainBatchSize: 1, maxLength: tokens },
    onWarning: () => {},
  })
  let best = 0
  for await (const line of trainer.train({ signal }))
    if ('loss' in line && line.step > 1) best = Math.max(best, line.tokensPerSecond)
  return best
}

/** A text of at least so many tokens; the trainer cuts it. */
function textOf(lm: LanguageModel, tokens: number): string {
  let text = 'The quick brown fox jumps over the lazy dog. '
  while (lm.tokenizer.encode(text).length < tokens) text += text
  return text
}
