// Damages small real files of every kind that we open, and opens them: whatever comes of it is a result or a HalflingError,
// within 2 seconds of computing and 256 MB. Runs in a thread that is watched and replaced when it hangs or dies.
//
//     npx tsx test/trust/corruption.ts [--count 20000] [--seed 1] [--kind gguf] [--json]
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { makeKinds } from './kinds.ts'
import { randomOf } from './mutations.ts'

interface Tally {
  mutations: number
  opened: number
  refused: Record<string, number>
  slowest: number
  /** Bytes of the process above what it had before, looked at every 20 ms. */
  growth: number
  /** Bytes that were asked for at once. */
  largest: number
}

/** Seconds of computing without an end, and by the clock. */
const [hangAfter, stuckAfter] = [2, 60]
const growthLimit = 256 * 2 ** 20

const buffers = [
  ...['ArrayBuffer', 'SharedArrayBuffer', 'Uint8Array', 'Int8Array', 'Uint8ClampedArray', 'Uint16Array', 'Int16Array'],
  ...['Uint32Array', 'Int32Array', 'Float32Array', 'Float64Array', 'BigInt64Array', 'BigUint64Array'],
]

/** A worker has no TypeScript loader of its own. Before anything else its buffers learn to tell how large they are. */
const bootstrap = `
globalThis.largest = 0
const note = (bytes) => { if (bytes > globalThis.largest) globalThis.largest = bytes }
for (const name of ${JSON.stringify(buffers)})
  globalThis[name] = new Proxy(globalThis[name], {
    construct(made, given, by) {
      if (typeof given[0] === 'number') note(given[0] * (made.BYTES_PER_ELEMENT ?? 1))
      return Reflect.construct(made, given, by === globalThis[name] ? made : by)
    },
  })
for (const name of ['alloc', 'allocUnsafe', 'allocUnsafeSlow']) {
  const make = Buffer[name]
  Buffer[name] = (size, ...more) => (note(size), make(size, ...more))
}
import('tsx/esm/api').then(({ register }) => { register(); return import(${JSON.stringify(import.meta.url)}) })`

interface Job {
  readonly kind: string
  readonly seed: number
  readonly from: number
  readonly to: number
  /** i32[1]: the mutation under way. */
  readonly state: SharedArrayBuffer
}

/** Of computing, in this process: a busy machine is no hang. */
const seconds = (): number => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

const asked = globalThis as unknown as { largest: number }

async function work({ kind: name, seed, from, to, state }: Job): Promise<void> {
  const at = new Int32Array(state)
  const kind = (await makeKinds())[name]
  await kind.prepare?.()
  parentPort!.postMessage({ ready: true })
  const tally: Tally = { mutations: 0, opened: 0, refused: {}, slowest: 0, growth: 0, largest: 0 }
  for (let i = from; i < to; i++) {
    Atomics.store(at, 0, i)
    const start = seconds()
    asked.largest = 0
    try {
      await kind.attempt(randomOf(seed, i))
      tally.opened++
    } catch (error) {
      const { name, code, message, stack } = error as Error & { code?: string }
      const isTyped = typeof code === 'string' && /Error$/.test(name) && kind.isTyped(error)
      if (!isTyped) {
        parentPort!.postMessage({ raw: i, message: `${name}: ${message}`, stack })
        continue
      }
      tally.refused[name] = (tally.refused[name] ?? 0) + 1
    }
    if (asked.largest > growthLimit)
      parentPort!.postMessage({ raw: i, message: `asks for ${asked.largest} bytes at once`, stack: '' })
    tally.largest = Math.max(tally.largest, asked.largest)
    tally.mutations++
    tally.slowest = Math.max(tally.slowest, 1000 * (seconds() - start))
  }
  await kind.end?.()
  parentPort!.postMessage({ tally })
}

async function run(
  kind: string,
  count: number,
  seed: number,
  report: (problem: string) => void,
  perSecond: (n: number) => void,
): Promise<Tally> {
  let found = 0
  const problem = (text: string) => {
    found++
    report(text)
  }
  const total: Tally = { mutations: 0, opened: 0, refused: {}, slowest: 0, growth: 0, largest: 0 }
  // A thread a few thousand mutations: what the garbage of one leaves must not count for the next.
  const batch = 10_000
  for (let from = 0; from < count; ) {
    const to = Math.min(count, from + batch)
    const state = new SharedArrayBuffer(4)
    const at = new Int32Array(state)
    at[0] = -1
    const job: Job = { kind, seed, from, to, state }
    const worker = new Worker(bootstrap, {
      eval: true,
      workerData: job,
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: 160 },
    })
    let [last, since, start, ready, baseline] = [-1, 0, 0, false, 0]
    const next = await new Promise<number>((resolve) => {
      const stop = (index: number) => {
        clearInterval(watch)
        void worker.terminate().then(() => resolve(index))
      }
      const fail = (index: number, what: string) => {
        problem(`${kind} mutation ${index} of seed ${seed}: ${what}`)
        stop(index + 1)
      }
      const watch = setInterval(() => {
        if (!ready) return
        const growth = process.memoryUsage().rss - baseline
        total.growth = Math.max(total.growth, growth)
        if (at[0] !== last) [last, since, start] = [at[0], seconds(), performance.now()]
        else if (seconds() - since > hangAfter || performance.now() - start > 1000 * stuckAfter) fail(last, 'hangs')
        if (growth > growthLimit) fail(at[0], `grew by ${(growth / 2 ** 20).toFixed(0)} MB`)
      }, 20)
      worker.on('message', (message) => {
        if (message.ready) {
          ready = true
          ;[since, start] = [seconds(), performance.now()]
          baseline = process.memoryUsage().rss
        } else if (message.raw !== undefined)
          problem(`${kind} mutation ${message.raw} of seed ${seed}: ${message.message}\n${message.stack}`)
        else {
          const { mutations, opened, refused, slowest, largest } = message.tally as Tally
          total.largest = Math.max(total.largest, largest)
          total.mutations += mutations
          total.opened += opened
          total.slowest = Math.max(total.slowest, slowest)
          for (const [name, n] of Object.entries(refused)) total.refused[name] = (total.refused[name] ?? 0) + n
          stop(to)
        }
      })
      worker.on('error', (error) => fail(Math.max(at[0], from), `the thread died: ${error.message}`))
    })
    from = next
    perSecond(from)
    if (found > 50) break
  }
  return total
}

if (!isMainThread) await work(workerData)
else {
  const { values } = parseArgs({
    options: {
      count: { type: 'string', default: '20000' },
      seed: { type: 'string', default: '1' },
      kind: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  })
  const kinds = await makeKinds()
  const chosen = values.kind ? [values.kind] : Object.keys(kinds)
  const weight = chosen.reduce((sum, name) => sum + kinds[name].share, 0)
  const problems: string[] = []
  const table: Record<string, Tally> = {}
  for (const name of chosen) {
    const count = Math.ceil((Number(values.count) * kinds[name].share) / weight)
    const start = performance.now()
    const report = (problem: string) => {
      problems.push(problem)
      if (!values.json) console.error(problem)
    }
    table[name] = await run(name, count, Number(values.seed), report, (done) => {
      const rate = (1000 * done) / (performance.now() - start)
      if (!values.json)
        console.error(`${name} ${done} of ${count}, ${rate.toFixed(0)} a second, ${problems.length} problems`)
    })
  }
  if (values.json) console.log(JSON.stringify({ table, problems }))
  else {
    for (const [name, { mutations, opened, refused, slowest, growth, largest }] of Object.entries(table))
      console.log(
        `${name.padEnd(12)} ${String(mutations).padStart(8)} opened ${String(opened).padStart(7)}  slowest ${slowest.toFixed(0).padStart(5)} ms  +${(growth / 2 ** 20).toFixed(0)} MB  at once ${(largest / 2 ** 20).toFixed(1)} MB  ${JSON.stringify(refused)}`,
      )
    console.log(problems.length === 0 ? 'no problems' : problems.join('\n'))
  }
  process.exitCode = problems.length > 0 ? 1 : 0
}
