// Runs in the browser: the SDK as code in a page uses it, on the device wasm.
import {
  accuracyReward,
  DataError,
  type GRPOOptions,
  GRPOTrainer,
  LanguageModel,
  loadModel,
  OptionError,
  RewardError,
  type RewardFunction,
  SFTTrainer,
  urlFolder,
} from '../../sdk/index.ts'

type Rows = readonly Record<string, unknown>[]

const nano = (dtype: 'f32' | 'q8' = 'f32', threads?: number) =>
  loadModel(urlFolder(new URL('nano/', location.href)), { device: 'wasm', dtype, threads })

async function failure(work: Promise<unknown>) {
  const error = await work.then(
    () => null,
    (thrown) => thrown,
  )
  const kind = [OptionError, DataError, RewardError].findIndex((type) => error instanceof type)
  return { kind: ['option', 'data', 'reward'][kind], code: error?.code, message: error?.message }
}

const args = { outputDir: null, maxSteps: 3, learningRate: 2e-3, perDeviceTrainBatchSize: 4 }
const grpoArgs = { ...args, maxSteps: 2, numGenerations: 4, maxCompletionLength: 24, temperature: 1.3 }

/** Chats and trains; everything that is refused, aborted or left. */
async function tryApi(rows: Rows) {
  const model = await nano()
  const question = [{ role: 'user' as const, content: 'What is 17 + 25?' }]
  const { text } = await LanguageModel.complete(model.chat(question, { temperature: 0 }))

  const sft = (trainDataset: Rows) => new SFTTrainer({ model, trainDataset, peft: { r: 4 }, args })
  const losses: number[] = []
  for await (const log of sft(rows).train()) if ('loss' in log) losses.push(log.loss)
  const { forecast } = await sft(rows).plan()
  const wrongRow = await failure(
    sft([{ colour: 'blue' }])
      .train()
      .next(),
  )

  const controller = new AbortController()
  const aborted = await failure(
    (async () => {
      for await (const _ of sft(rows).train({ signal: controller.signal })) controller.abort(new Error('enough'))
    })(),
  )
  // One that is left after its first step stays as it is then; while it runs, adapters may not change.
  const left = sft(rows).train()
  await left.next()
  const busy = await failure(model.setAdapters([]))
  await left.return()
  const adapters = [...model.model.adapters.keys()]
  await model.renameAdapter('default', 'first')
  const taken = await failure(model.renameAdapter('first', 'default-2'))
  await model.removeAdapter('default-2')
  const renamed = [[...model.model.adapters.keys()], [...model.model.activeAdapters]]
  await model.close()
  return { text, losses, forecast, wrongRow, aborted, busy, adapters, taken, renamed }
}

/** Rewards are closures of the page; a second model draws, or is compared with. */
async function tryRewards(rows: Rows) {
  const model = await nano()
  const rewarded = async (rewardFuncs: GRPOOptions['rewardFuncs'], more: Partial<GRPOOptions> = {}) => {
    const own = { model, trainDataset: rows, rewardFuncs, peft: { r: 4 }, args: grpoArgs, ...more }
    const logs = []
    for await (const log of new GRPOTrainer(own).train()) if ('loss' in log) logs.push(log)
    await model.setAdapters([])
    return logs
  }
  const seen: string[] = []
  const closure: RewardFunction = (completions) => {
    seen.push(...completions.map(({ completion }) => completion))
    return completions.map(({ completionIds }) => -completionIds.length / 24)
  }
  const own = await rewarded([closure, accuracyReward])
  const asMathematics = await accuracyReward(
    [
      ['\\frac{1}{2}', '\\boxed{0.5}'],
      ['\\frac{1}{2}', '\\boxed{0.25}'],
      ['x+1', '\\boxed{1+x}'],
    ].map(([answer, completion]) => ({
      ...{ completion, row: { answer }, prompt: '', group: 0 },
      completionIds: [],
      truncated: false,
    })),
  )
  const broken = await failure(rewarded(() => missing as never))
  const quantized = await nano('q8')
  const drawn = await rewarded(closure, { rolloutModel: quantized })
  await quantized.close()
  const before = await nano()
  const compared = await rewarded(closure, { refModel: before, peft: null, args: { ...grpoArgs, beta: 0.1 } })
  await before.close()
  await model.close()
  return { seen: seen.length, own, asMathematics, broken, drawn, compared }
}
declare const missing: unknown

/** The same training and answer, with a Worker that ends in the middle of each. */
async function tryLoss(rows: Rows) {
  const workers: Worker[] = []
  const { Worker: Plain } = globalThis
  globalThis.Worker = class extends Plain {
    constructor(url: string | URL, options?: WorkerOptions) {
      super(url, options)
      workers.push(this)
    }
  }
  const run = async (cut: () => void) => {
    let lost = 0
    const options = { device: 'wasm', dtype: 'f32', onDeviceLost: () => lost++ } as const
    const model = await loadModel(urlFolder(new URL('nano/', location.href)), options)
    const losses: number[] = []
    for await (const log of new SFTTrainer({ model, trainDataset: rows, peft: { r: 4 }, args }).train())
      if ('loss' in log) {
        losses.push(log.loss)
        if (log.step === 2) cut()
      }
    let text = ''
    for await (const piece of model.chat([{ role: 'user', content: 'What is 17 + 25?' }], { temperature: 0 })) {
      if (text === '') cut()
      text += piece.text
    }
    await model.close()
    return { losses, text, lost }
  }
  const whole = await run(() => {})
  const cut = await run(() => workers.at(-1)!.terminate())
  globalThis.Worker = Plain
  return { whole, cut, workers: workers.length }
}

/** Works whose tasks are timed. One thread computes, so that another core is the page's. */
async function tryWorks(rows: Rows) {
  const model = await nano('f32', 1)
  const trainDataset = Array.from({ length: 2000 }, (_, i) => rows[i % rows.length])
  const sft = new SFTTrainer({ model, trainDataset, peft: { r: 4 }, args })
  const grpo = new GRPOTrainer({
    model,
    trainDataset: rows,
    rewardFuncs: accuracyReward,
    peft: { r: 4 },
    args: { ...grpoArgs, perDeviceTrainBatchSize: 32, maxCompletionLength: 48 },
  })
  const all = async (logs: AsyncIterable<unknown>) => {
    for await (const _ of logs);
  }
  const messages = [{ role: 'user', content: String(rows[0].question) }] as const
  const works = {
    load: async () => (await nano('q8', 1)).close(),
    chat: () => LanguageModel.complete(model.chat(messages, { temperature: 0 })),
    training: () => all(sft.train()),
    rollouts: () => all(grpo.train()),
    end: () => model.close(),
  }
  Object.assign(globalThis, { works })
}

export type Tried = Awaited<ReturnType<typeof tryApi>>
export type Rewarded = Awaited<ReturnType<typeof tryRewards>>
export type Lost = Awaited<ReturnType<typeof tryLoss>>
Object.assign(globalThis, { tryApi, tryRewards, tryLoss, tryWorks })
