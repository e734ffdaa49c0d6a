import { describe, expect, it } from 'vitest'
import { DeviceError, DeviceLostError, MemoryError, OptionError, ShapeError } from '../../sdk/errors.ts'
import { Graph } from '../../sdk/graph/graph.ts'
import { planMemory, toProgram } from '../../sdk/graph/program.ts'
import { add, ops } from '../../sdk/ops/index.ts'
import { difference, expectedOf, fillCase, runCase } from '../../sdk/self-test.ts'
import type { KernelProfile, Target } from '../../sdk/target.ts'
import { referenceTarget } from '../../targets/reference/index.ts'
import { remoteTarget } from '../../targets/remote/index.ts'
import { type Devices, type Port, serveTarget } from '../../targets/remote/serve.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'

/** A Worker whose thread is this one. */
class FakeWorker extends EventTarget {
  ended = false
  private readonly port: MessagePort

  constructor(devices: Partial<Devices>) {
    super()
    const { port1, port2 } = new MessageChannel()
    this.port = port1
    port1.addEventListener('message', ({ data }) => this.dispatchEvent(new MessageEvent('message', { data })))
    port1.start()
    serveTarget({ open: async () => referenceTarget(), find: async () => [], ...devices }, port2 as unknown as Port)
    port2.start()
  }

  postMessage(message: unknown, transfer: Transferable[]): void {
    this.port.postMessage(message, transfer)
  }

  terminate(): void {
    this.ended = true
    this.port.close()
  }

  die(message: string): void {
    this.dispatchEvent(Object.assign(new Event('error', { cancelable: true }), { message }))
  }
}

const open = async (make: () => Target = referenceTarget): Promise<[Target, FakeWorker]> => {
  const worker = new FakeWorker({ open: async () => make() })
  return [await remoteTarget(worker as unknown as Worker), worker]
}

const type = { dtype: 'f32', shape: [2] } as const
/** y = x + w, and x can be carried. */
function program() {
  const g = new Graph()
  g.output('y', add(g, g.input('x', type), g.weight('w', type)))
  return toProgram(g, 'sum')
}
const x = Float32Array.of(1, 2)

describe('a target in a Worker', () => {
  it('computes every case of every op as the target itself', async () => {
    const [target] = await open()
    for (const spec of Object.values(ops))
      for (const c of spec.cases) {
        const filled = fillCase(spec, c)
        const got = await runCase(target, spec, c, filled)
        expect(difference(got, expectedOf(spec, c, filled), c.tolerance?.value), `${spec.name}, ${c.name}`).toBeNull()
      }
    await target.close()
  })

  it('tells what it is, repeats steps, collects, and leaves the views of its caller alone', async () => {
    const [target] = await open()
    expect([target.name, target.info, target.profile]).toEqual(['reference', referenceTarget().info, undefined])
    expect([target.supports('add', [], {}), target.supports('toast', [], {})]).toEqual([
      true,
      'reference has no op toast',
    ])
    const w = target.create(type, 'w')
    const numbers = Float32Array.of(0, 10, 100, 0)
    const written = target.write(w, numbers.subarray(1, 3))
    numbers.fill(7)
    await written
    expect(new Float32Array(await target.read(w, 4))).toEqual(Float32Array.of(100))
    const executable = await target.compile(program(), { w })
    expect(executable.memory).toEqual(planMemory(program()))
    const out = await executable.run({ x }, { steps: 3, carry: { x: 'y' }, collect: ['y'] })
    expect(out).toEqual({ y: Float32Array.of(11, 102, 21, 202, 31, 302) })
    expect([...x]).toEqual([1, 2])
    expect(await target.scratchBytes([program()])).toBe(await referenceTarget().scratchBytes([program()]))
    await target.close()
  })

  it('takes the blocks of files that the target takes', async () => {
    const own = await wasmTarget({ shared: false })
    const [target] = await open(() => own)
    expect([target.conversions, own.conversions?.includes('Q4_K_q4a')]).toEqual([own.conversions, true])
    const block = Uint8Array.from({ length: 144 }, (_, i) => i)
    const written = await Promise.all(
      [target, own].map(async (one) => {
        const buffer = one.create({ dtype: 'q4a', shape: [256] }, 'w')
        await one.write(buffer, block, 0, { type: 'Q4_K', elements: 256, bytes: 144 })
        return new Uint8Array(await one.read(buffer))
      }),
    )
    expect(written[0].length).toBe(160)
    expect(written[0]).toEqual(written[1])
    await target.close()
  })

  it('throws what the target throws, with class, code and message', async () => {
    const memory = () => {
      const target = referenceTarget()
      return Object.assign(Object.create(target) as Target, {
        create: (t: typeof type, name: string) => {
          if (name === 'huge') throw new MemoryError('huge: 8 bytes')
          return target.create(t, name)
        },
        write: target.write.bind(target),
        compile: target.compile.bind(target),
        close: target.close.bind(target),
        info: target.info,
      })
    }
    const [target] = await open(memory)
    const huge = target.create(type, 'huge')
    await expect(target.write(huge, x)).rejects.toThrow(new MemoryError('huge: 8 bytes'))
    await expect(target.compile(program(), { w: huge })).rejects.toMatchObject({ name: 'MemoryError', code: 'memory' })
    target.free(huge)
    const w = target.create(type, 'w')
    await expect(target.compile(program(), {})).rejects.toThrow(
      new ShapeError('program sum: no buffer bound for weight w'),
    )
    const executable = await target.compile(program(), { w })
    await expect(executable.run({})).rejects.toThrow(new ShapeError('program sum: input x f32[2] is missing'))
    await expect(target.write(w, x, 4)).rejects.toThrow(new ShapeError('w: bytes 4 to 12 of 8'))
    target.free(w)
    target.free(w)
    expect(() => target.write(w, x)).toThrow(new DeviceError('w: used after free'))
    const [other] = await open()
    await expect(other.read(target.create(type, 'mine'))).rejects.toThrow('mine: a buffer of another target')
    executable.free()
    await expect(executable.run({ x })).rejects.toThrow('program sum: run after free')
    for (const t of [target, other]) await t.close()
    await expect(target.scratchBytes([])).rejects.toThrow('reference: the target is closed')
  })

  it('aborts a run with the reason of its signal; others go on', async () => {
    const [target] = await open()
    const w = target.create(type, 'w')
    const executable = await target.compile(program(), { w })
    const controller = new AbortController()
    const aborted = executable.run({ x }, { steps: 10_000, carry: { x: 'y' }, signal: controller.signal })
    const after = executable.run({ x })
    setTimeout(() => controller.abort(new OptionError('enough')), 20)
    await expect(aborted).rejects.toThrow(new OptionError('enough'))
    expect(await after).toEqual({ y: x })
    await expect(executable.run({ x }, { signal: controller.signal })).rejects.toThrow('enough')
    await target.close()
  })

  it('profiles the work of the page, where the target can', async () => {
    const seen: string[] = []
    const profiled: KernelProfile = { kernel: 'add', calls: 1, milliseconds: 2, bytes: 3, operations: null }
    const [target] = await open(() =>
      Object.assign(referenceTarget(), {
        profile: async (work: () => Promise<unknown>) => {
          seen.push('begun')
          await work()
          seen.push('ended')
          return [profiled]
        },
      }),
    )
    expect(await target.profile!(async () => seen.push('work'))).toEqual([profiled])
    await expect(target.profile!(() => Promise.reject(new Error('no')))).rejects.toThrow('no')
    expect(seen).toEqual(['begun', 'work', 'ended', 'begun', 'ended'])
    await target.close()
  })

  it('a Worker that cannot start, or cannot open a device, is a DeviceError', async () => {
    const silent = new FakeWorker({ open: () => new Promise(() => {}) })
    const opening = remoteTarget(silent as unknown as Worker)
    silent.die('')
    const error = await opening.catch((thrown) => thrown)
    expect(error).toEqual(new DeviceError("the device's Worker does not start: its script cannot be loaded"))
    expect(error).not.toBeInstanceOf(DeviceLostError)
    const none = new FakeWorker({ open: () => Promise.reject(new DeviceError('webgpu: no adapter')) })
    await expect(remoteTarget(none as unknown as Worker)).rejects.toThrow(new DeviceError('webgpu: no adapter'))
    expect([silent.ended, none.ended]).toEqual([true, true])
  })

  it('a Worker that dies is a lost device: whatever waits rejects, and whatever comes', async () => {
    const [target, worker] = await open()
    const w = target.create(type, 'w')
    const executable = await target.compile(program(), { w })
    const waiting = [executable.run({ x }, { steps: 10_000, carry: { x: 'y' } }), target.read(w)]
    worker.die('out of memory')
    const lost = new DeviceLostError("the device's Worker died: out of memory")
    for (const work of [...waiting, target.write(w, x), executable.run({ x }), target.scratchBytes([])]) {
      const error = await Promise.resolve(work).catch((thrown) => thrown)
      expect(error).toBeInstanceOf(DeviceLostError)
      expect(error).toEqual(lost)
      expect(error.code).toBe('device-lost')
    }
    target.create(type, 'late')
    await target.close()
    expect(worker.ended).toBe(true)
  })

  it('close ends the Worker and what runs in it', async () => {
    const [target, worker] = await open()
    const executable = await target.compile(program(), { w: target.create(type, 'w') })
    const running = executable.run({ x }, { steps: 100_000, carry: { x: 'y' } }).catch((error) => error)
    await Promise.all([target.close(), target.close()])
    expect(worker.ended).toBe(true)
    expect(await running).toEqual(new DeviceError('reference: the target is closed'))
  })
})
