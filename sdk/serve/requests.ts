import { z } from 'zod'

// What OpenAI's clients send. Unknown keys are passed over, as servers do.

const ids = z.array(z.int().min(0)).min(1)
const share = z.number().min(0).max(1)

const sampling = {
  model: z.string().optional(),
  temperature: z.number().min(0).max(100).nullish(),
  top_p: share.nullish(),
  top_k: z.int().min(-1).nullish(),
  min_p: share.nullish(),
  frequency_penalty: z.number().nullish(),
  presence_penalty: z.number().nullish(),
  repetition_penalty: z.number().positive().nullish(),
  seed: z.int().min(0).nullish(),
  stop: z.union([z.string(), z.array(z.string()).max(16)]).nullish(),
  n: z.int().min(1).max(16).nullish(),
  stream: z.boolean().nullish(),
}

export const completionRequest = z.object({
  ...sampling,
  prompt: z.union([z.string(), ids, z.array(z.string()).min(1).max(256), z.array(ids).min(1).max(256)]),
  max_tokens: z.int().min(0).nullish(),
  echo: z.boolean().nullish(),
  logprobs: z.int().min(0).max(64).nullish(),
  /** vLLM's: tokens as "token_id:123". */
  return_tokens_as_token_ids: z.boolean().nullish(),
})
export type CompletionRequest = z.infer<typeof completionRequest>

export const chatRequest = z.object({
  ...sampling,
  messages: z.array(z.looseObject({ role: z.string() })).min(1),
  tools: z.array(z.unknown()).nullish(),
  max_tokens: z.int().min(1).nullish(),
  max_completion_tokens: z.int().min(1).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(64).nullish(),
})
export type ChatRequest = z.infer<typeof chatRequest>
