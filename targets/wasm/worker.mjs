// One compute thread. All threads hold the same programs over one shared memory and run them in lockstep: every call
// with its own `thread`, a barrier after each. Plain JS: from source a TypeScript loader would cost each of many threads 0.15 s.
//
// messages in:  {module, memory, control, thread, threads} once, then {load: id, calls}, {unload: id},
//               {run: id, steps, before, after}: the calls so many times over, with bytes moved before and after each (pool.ts)
// messages out: {ready}, {done: id, aborted} from thread 0, {error, kernel}

/** @import {Call} from './lower/types.ts' */
/** @import {Move, Steps, WorkerReply} from './pool.ts' */
/** @typedef {{module: WebAssembly.Module, memory: WebAssembly.Memory, control: number, thread: number, threads: number}} Start */
/** @typedef {Start | {load: number, calls: readonly Call[]} | {unload: number} | Steps & {run: number}} Message */

/**
 * Where messages go: the page's worker scope, or Node's parent port.
 *
 * @type {(reply: WorkerReply) => void}
 */
let post
/** @type {Map<number, {name: string, call: () => void, goesOn: boolean}[]>} */
const programs = new Map()
/** @type {Record<string, (...args: readonly unknown[]) => number>} */
let kernels
/** @type {number} */
let control
/** @type {number} */
let thread
/** @type {number} */
let threads

/** @param {Start} message */
function start(message) {
  ;({ control, thread, threads } = message)
  const { exports } = new WebAssembly.Instance(message.module, { env: { memory: message.memory, abort } })
  kernels = /** @type {typeof kernels} */ (exports)
  post({ ready: true })
}

function abort() {
  throw new Error('kernel assertion')
}

/**
 * @param {number} id
 * @param {readonly Call[]} calls
 */
function load(id, calls) {
  const bound = calls.map(([name, ...args]) => {
    if (typeof kernels[name] !== 'function') throw new Error(`no kernel ${name}`)
    return { name, call: kernels[name].bind(null, ...args, thread, threads), goesOn: false }
  })
  // Such a call uses what its thread left in its own scratch, and nothing of other threads.
  for (const [i, { name }] of bound.entries()) if (name.endsWith('Again')) bound[i - 1].goesOn = true
  programs.set(id, bound)
}

/**
 * One thread moves for all of them, which wait at the next barrier.
 *
 * @param {readonly Move[]} moves
 * @param {number} step
 */
function move(moves, step) {
  if (thread !== 0) return
  for (const { to, toStride, from, fromStride, bytes } of moves)
    kernels.move(to + step * toStride, from + step * fromStride, bytes)
}

/** @param {Steps & {run: number}} message */
function run({ run: id, steps, before, after }) {
  const { barrier } = kernels
  const calls = programs.get(id) ?? []
  let current = ''
  try {
    let aborted = 0
    for (let step = 0; step < steps && !aborted; step++) {
      move(before, step)
      // Keeps a late thread's earlier run or step apart from this one, and sees an abort before any work.
      aborted = barrier(control, threads)
      for (const { name, call, goesOn } of calls) {
        if (aborted) break
        current = name
        call()
        if (!goesOn) aborted = barrier(control, threads)
      }
      if (!aborted) move(after, step)
    }
    if (thread === 0) post({ done: id, aborted: aborted === 1 })
  } catch (error) {
    post({ error: String(error), kernel: current })
  }
}

/** @param {Message} message */
function handle(message) {
  try {
    if ('module' in message) start(message)
    else if ('calls' in message) load(message.load, message.calls)
    else if ('unload' in message) programs.delete(message.unload)
    else run(message)
  } catch (error) {
    post({ error: String(error), kernel: '' })
  }
}

// No top-level await: bundlers may make a classic script of this file.
if (globalThis.self?.postMessage) {
  post = (reply) => globalThis.self.postMessage(reply)
  globalThis.self.addEventListener('message', (event) => handle(event.data))
} else
  import('node:worker_threads').then(({ parentPort: port }) => {
    post = (reply) => port?.postMessage(reply)
    port?.on('message', handle)
  })
