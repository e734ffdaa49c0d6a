// Runs in the browser: the engine in its Worker, as a page of one's own would use it.
import { openEngine } from '../../sdk/browser/index.ts'
import { DataError, OptionError } from '../../sdk/index.ts'

async function tryEngine(rows: readonly Record<string, string>[]) {
  const engine = await openEngine()
  const failure = async (work: Promise<unknown>) => {
    const error = await work.then(
      () => null,
      (thrown) => thrown,
    )
    return {
      option: error instanceof OptionError,
      data: error instanceof DataError,
      code: error?.code,
      message: error?.message,
    }
  }
  const unloaded = await failure(engine.chat([{ role: 'user', content: 'Hello' }]).next())

  const info = await engine.load({ url: new URL('nano/', location.href).href }, { device: 'wasm' })
  let text = ''
  for await (const piece of engine.chat([{ role: 'user', content: 'What is 17 + 25?' }], { temperature: 0 }))
    text += piece.text

  const args = { outputDir: null, maxSteps: 3, learningRate: 2e-3, perDeviceTrainBatchSize: 4 }
  const losses: number[] = []
  for await (const log of engine.sft({ trainDataset: rows, peft: { r: 4 }, args }))
    if ('loss' in log) losses.push(log.loss)
  const [adapter] = await engine.adapters()

  const wrongRow = await failure(engine.sft({ trainDataset: [{ colour: 'blue' }], peft: { r: 4 }, args }).next())
  const wrongReward = await failure(engine.grpo({ trainDataset: rows, rewards: '17', peft: { r: 4 }, args }).next())
  const forecast = await engine.forecast({ kind: 'sft', options: { trainDataset: rows, peft: { r: 4 }, args } })

  const controller = new AbortController()
  const aborted = await failure(
    (async () => {
      for await (const _ of engine.sft({ trainDataset: rows, peft: { r: 4 }, args }, { signal: controller.signal }))
        controller.abort(new Error('enough'))
    })(),
  )
  // One that is left after its first step stays as it is then; while it runs, adapters may not change.
  const left = engine.sft({ trainDataset: rows, peft: { r: 4 }, args })
  await left.next()
  const busy = await failure(engine.setAdapters([]))
  await left.return()
  const adapters = (await engine.adapters()).map(({ name }) => name)
  engine.close()
  return { unloaded, info, text, losses, adapter, wrongRow, wrongReward, forecast, aborted, busy, adapters }
}

export type Tried = Awaited<ReturnType<typeof tryEngine>>
Object.assign(globalThis, { tryEngine })
