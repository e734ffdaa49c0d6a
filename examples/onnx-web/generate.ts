import wasm from 'onnxruntime-web/ort-wasm-simd-threaded.wasm?url'
import { env, InferenceSession, Tensor } from 'onnxruntime-web/wasm'

env.wasm.wasmPaths = { wasm }
// Threads would be begun from a script of onnxruntime's own, which the page's headers do not let in.
env.wasm.numThreads = 1

/** A file of `halfling export`, by its address. */
export const openModel = (url: string): Promise<InferenceSession> =>
  InferenceSession.create(url, { executionProviders: ['wasm'] })

/** The likeliest tokens after a prompt, one by one, until one of `ends`. */
export async function* generate(
  model: InferenceSession,
  prompt: readonly number[],
  ends: readonly number[],
  maxNewTokens: number,
): AsyncGenerator<number, void> {
  let past = emptyCache(model)
  let length = 0
  let next = prompt
  for (let n = 0; n < maxNewTokens; n++) {
    length += next.length
    const inputs = { input_ids: row(next), attention_mask: row(Array(length).fill(1)) }
    const outputs = await model.run({ ...inputs, ...past })
    // [1, tokens, vocabulary]: the last token's.
    const [, tokens, vocabulary] = outputs.logits.dims
    const logits = (outputs.logits.data as Float32Array).subarray((tokens - 1) * vocabulary)
    const id = logits.reduce((best, z, i) => (z > logits[best] ? i : best), 0)
    if (ends.includes(id)) return
    yield id
    next = [id]
    past = Object.fromEntries(
      Object.keys(past).map((name) => [name, outputs[name.replace('past_key_values', 'present')]]),
    )
  }
}

/** int64 [1, n] */
const row = (numbers: readonly number[]): Tensor =>
  new Tensor('int64', BigInt64Array.from(numbers.map(BigInt)), [1, numbers.length])

/** Keys and values of no tokens, [1, heads, 0, width] each. */
const emptyCache = (model: InferenceSession): Record<string, Tensor> =>
  Object.fromEntries(
    model.inputMetadata.flatMap((input) => {
      if (!input.isTensor || !input.name.startsWith('past_key_values.')) return []
      const [, heads, , width] = input.shape.map(Number)
      return [[input.name, new Tensor('float32', new Float32Array(0), [1, heads, 0, width])]]
    }),
  )
