// Runs in the browser, in the page and in a worker of it: the wasm target.
import { findDevices, LanguageModel, loadModel, urlFolder } from '../../sdk/index.ts'
import { ops } from '../../sdk/ops/index.ts'
import { failingCases } from './cases.ts'

async function cases(threads?: number) {
  const { wasmTarget } = await import('../../targets/wasm/index.ts')
  const target = await wasmTarget({ threads })
  const { features, threads: used } = target.info
  const wrong = await failingCases(target)
  await target.close()
  return { features, threads: used, wrong, cases: Object.values(ops).reduce((n, spec) => n + spec.cases.length, 0) }
}

async function answer(base: string, question: string): Promise<number[]> {
  const lm = await loadModel(urlFolder(base), { device: 'wasm' })
  const options = { maxNewTokens: 64, temperature: 0 }
  const { tokenIds } = await LanguageModel.complete(lm.chat([{ role: 'user', content: question }], options))
  await lm.close()
  return tokenIds
}

if ('document' in globalThis) {
  const inWorker = (base: string, question: string) =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL('./wasm-page.ts', import.meta.url), { type: 'module' })
      worker.onmessage = ({ data }) => resolve(data)
      worker.onerror = ({ message }) => reject(new Error(message))
      worker.postMessage([base, question])
    })
  Object.assign(globalThis, { cases, answer, inWorker, devices: () => findDevices() })
} else globalThis.onmessage = async ({ data: [base, question] }) => globalThis.postMessage(await answer(base, question))
