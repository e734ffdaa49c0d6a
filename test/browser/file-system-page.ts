// Runs in the browser, in the page and in a worker of it: the cases on the browser's storage.
import { fileSystem } from '../../sdk/formats/file-system.ts'
import { cases } from '../formats/file-system-cases.ts'

async function runCases(folder: string): Promise<Record<string, unknown>> {
  const fs = await fileSystem()
  const seen: Record<string, unknown> = {}
  for (const [i, [name, { run }]] of Object.entries(cases).entries()) {
    const at = `${folder}/${i}`
    await fs.mkdir(at, { recursive: true })
    seen[name] = await run(fs, at).catch((error) => String(error.stack))
  }
  await fs.rm(folder, { recursive: true })
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
