// Runs in the browser: a model of some megabytes on the page's WebGPU.
import { type FloatDType, type LanguageModel, loadModel, urlFolder } from '../../sdk/index.ts'

let model: LanguageModel

/** Bytes of its weights. */
async function load(dtype: 'auto' | FloatDType): Promise<number> {
  await model?.close()
  let bytes = 0
  model = await loadModel(urlFolder(new URL('model/', location.href)), {
    device: 'webgpu',
    dtype,
    onProgress: ({ totalBytes }) => {
      bytes = totalBytes
    },
  })
  return bytes
}

Object.assign(globalThis, { load })
