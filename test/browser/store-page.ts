// Runs in the browser, in the page and in a worker of it: the cases on the browser's storage.
import { storeAt } from '../../sdk/store/store.ts'
import { cases } from '../store/cases.ts'

async function runCases(folder: string): Promise<Record<string, unknown>> {
  const seen: Record<string, unknown> = {}
  for (const [i, [name, { run }]] of Object.entries(cases).entries())
    seen[name] = await run(await storeAt(`${folder}/${i}`)).catch((error) => String(error.stack))
  await (await storeAt(folder)).remove('')
  return seen
}

if (typeof document === 'undefined')
  addEventListener('message', async () => postMessage(await runCases('cases-worker')))
else {
  const inWorker = () =>
    new Promise((resolve, reject) => {
      const worker = new Worker(import.meta.url, { type: 'module' })
      worker.onmessage = ({ data }) => resolve(data)
      worker.onerror = reject
      worker.postMessage({})
    })
  Object.assign(globalThis, { runCases: () => runCases('cases'), inWorker })
}
