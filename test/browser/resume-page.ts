// Runs in the browser: nano learns into a folder of the browser's storage.
import { fileSystem } from '../../sdk/formats/file-system.ts'
import { loadModel, SFTTrainer, urlFolder } from '../../sdk/index.ts'

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
  const fs = await fileSystem()
  const told: Record<string, string> = {}
  for (const name of await fs.readdir(folder, { recursive: true })) {
    const path = `${folder}/${name}`
    const { size, isFile } = await fs.stat(path)
    if (!isFile()) continue
    if (/\.jsonl?$/.test(name)) {
      told[name] = await fs.readFile(path, 'utf8')
      continue
    }
    const bytes = new Uint8Array(size)
    const handle = await fs.open(path, 'r')
    await handle.read(bytes, 0, size, 0)
    await handle.close()
    told[name] = String(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)))
  }
  return told
}

Object.assign(globalThis, { train, files, seen, hold })
