// Runs in the browser: nano learns into a folder of the browser's storage.
import { walk } from '../../sdk/hub/walk.ts'
import { HalflingError, loadModel, SFTTrainer, urlFolder } from '../../sdk/index.ts'
import { storeAt } from '../../sdk/store/store.ts'

type Rows = readonly Record<string, unknown>[]

/** Steps whose log line came, as far as this page has trained. */
const seen: number[] = []

/** Each page: waits after this step until it is told to go on. */
const hold = { after: 0, go: () => {} }

async function train(outputDir: string, rows: Rows, resume: boolean): Promise<void> {
  const model = await loadModel(urlFolder(new URL('nano/', location.href)), { device: 'webgpu', dtype: 'f32' })
  try {
    const sft = new SFTTrainer({
      model,
      trainDataset: rows,
      peft: { r: 4, loraDropout: 0.1 },
      args: { outputDir, maxSteps: 4, saveSteps: 2, learningRate: 2e-3, perDeviceTrainBatchSize: 2 },
    })
    for await (const log of sft.train({ resume })) {
      seen.push(log.step)
      if (log.step === hold.after)
        await new Promise<void>((resolve) => {
          hold.go = resolve
        })
    }
  } finally {
    await model.close()
  }
}

/** All files below a folder: text of the log, a hash of the others. */
async function files(folder: string): Promise<Record<string, string>> {
  const store = await storeAt(folder)
  const told: Record<string, string> = {}
  for (const { name, bytes } of await walk(store)) {
    const content = await (await store.open(name))!.read(0, bytes)
    told[name] = /\.jsonl?$/.test(name)
      ? new TextDecoder().decode(content)
      : String(new Uint8Array(await crypto.subtle.digest('SHA-256', content as Uint8Array<ArrayBuffer>)))
  }
  return told
}

/** A Worker keeps a file open for writing, so that nobody else can write it, until it is ended. */
const lock = (path: string): Promise<Worker> =>
  new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./lock-worker.ts', import.meta.url), { type: 'module' })
    worker.onmessage = ({ data }) => (data === 'locked' ? resolve(worker) : reject(new Error(data)))
    worker.postMessage(path)
  })

/** What the page would tell of a training that fails. */
const failing = (work: Promise<void>): Promise<string> =>
  work.then(
    () => 'trained',
    (error) => `${error instanceof HalflingError ? error.code : 'untyped'}: ${error.message}`,
  )

Object.assign(globalThis, { train, files, seen, hold, lock, failing })
