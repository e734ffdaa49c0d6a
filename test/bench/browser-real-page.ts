// Runs in Node and in the browser: speeds of a real model on the wasm target, in tokens/s.
import { measureDecode, measurePrefill } from '../../sdk/cli/measure.ts'
import { fileFolder, type LanguageModel, loadModel } from '../../sdk/index.ts'

export async function speeds(lm: LanguageModel): Promise<{ prefill: number; decode: number }> {
  return { prefill: await measurePrefill(lm, 128), decode: await measureDecode(lm, 64) }
}

if ('document' in globalThis) {
  let lm: LanguageModel
  const openModel = async (file: string, threads: number) => {
    const blob = await (await fetch(`model/${file}`)).blob()
    lm = await loadModel(fileFolder([new File([blob], file)]), { device: 'wasm', threads })
    return lm.model.target.info.features
  }
  Object.assign(globalThis, { openModel, measure: () => speeds(lm) })
}
