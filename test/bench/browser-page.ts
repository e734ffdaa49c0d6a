// Runs in the browser: the speeds that browser.ts asks for.
import { measureDecode, measureTraining } from '../../sdk/cli/measure.ts'
import { loadModel, urlFolder } from '../../sdk/index.ts'

async function measure(decodeTokens: number, trainTokens: number, steps: number) {
  const lm = await loadModel(urlFolder(new URL('pebble/', location.href)), { device: 'wasm', threads: 2 })
  const decode = await measureDecode(lm, decodeTokens)
  const training = await measureTraining(lm, trainTokens, steps)
  const { threads } = lm.model.target.info
  await lm.close()
  return { decode, training, threads }
}

Object.assign(globalThis, { measure })
