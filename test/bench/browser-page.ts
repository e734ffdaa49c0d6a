// Runs in Node and in the browser: speeds of a model on the wasm target, in tokens/s.
import { measureDecode, measureTraining } from '../../sdk/cli/measure.ts'
import { type LanguageModel, loadModel, urlFolder } from '../../sdk/index.ts'

/** Decoding 256 tokens, and LoRA steps of 256 tokens. */
export async function speeds(lm: LanguageModel): Promise<{ decode: number; train: number }> {
  const decode = await measureDecode(lm, 256)
  const train = await measureTraining(lm, 256, 4)
  await lm.setAdapters([])
  return { decode, train }
}

if ('document' in globalThis) {
  let lm: LanguageModel
  const openModel = async (threads: number) => {
    lm = await loadModel(urlFolder(new URL('model/', location.href)), { device: 'wasm', threads })
    return lm.model.target.info.threads
  }
  Object.assign(globalThis, { openModel, measure: () => speeds(lm) })
}
