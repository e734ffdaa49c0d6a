// One compute thread. All threads hold the same programs over one shared memory and run them in lockstep: every call
// with its own `thread`, a barrier after each. Plain JS: workers have no TypeScript loader.
//
// messages in:  {module, memory, control, thread, threads} once, then {load: id, calls}, {unload: id}, {run: id}
// messages out: {ready}, {done: id, aborted} from thread 0, {error, kernel}

/** Where messages go: the page's worker scope, or Node's parent port. */
let port
const programs = new Map()
let kernels
let control
let thread
let threads

function start(message) {
  ;({ control, thread, threads } = message)
  kernels = new WebAssembly.Instance(message.module, { env: { memory: message.memory, abort } }).exports
  port.postMessage({ ready: true })
}

function abort() {
  throw new Error('kernel assertion')
}

function load(id, calls) {
  const bound = calls.map(([name, ...args]) => {
    if (typeof kernels[name] !== 'function') throw new Error(`no kernel ${name}`)
    return { name, call: kernels[name].bind(null, ...args, thread, threads) }
  })
  programs.set(id, bound)
}

function run(id) {
  const { barrier } = kernels
  let current = ''
  try {
    // The first barrier keeps a late thread's earlier run apart from this one, and sees an abort before any work.
    let aborted = barrier(control, threads)
    for (const { name, call } of programs.get(id)) {
      if (aborted) break
      current = name
      call()
      aborted = barrier(control, threads)
    }
    if (thread === 0) port.postMessage({ done: id, aborted: aborted === 1 })
  } catch (error) {
    port.postMessage({ error: String(error), kernel: current })
  }
}

function handle(message) {
  try {
    if (message.module) start(message)
    else if (message.calls) load(message.load, message.calls)
    else if (message.unload !== undefined) programs.delete(message.unload)
    else run(message.run)
  } catch (error) {
    port.postMessage({ error: String(error), kernel: '' })
  }
}

// No top-level await: bundlers may make a classic script of this file.
if (globalThis.self?.postMessage) {
  port = globalThis.self
  port.addEventListener('message', (event) => handle(event.data))
} else
  import('node:worker_threads').then(({ parentPort }) => {
    port = parentPort
    port.on('message', handle)
  })
