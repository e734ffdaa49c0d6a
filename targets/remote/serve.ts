import type { TensorType } from '../../sdk/dtype.ts'
import { DeviceError } from '../../sdk/errors.ts'
import type { Program } from '../../sdk/graph/program.ts'
import { type OpName, ops } from '../../sdk/ops/index.ts'
import type {
  Buffer,
  CompileProgress,
  Executable,
  FileBlocks,
  KernelProfile,
  RunInputs,
  Target,
} from '../../sdk/target.ts'
import type { RemoteOptions } from './index.ts'
import { type Call, locksOf, type Opened, type SentRunOptions, sent } from './wire.ts'

/** The Worker's own scope, or one end of a channel. */
export interface Port {
  addEventListener(type: 'message', listener: (event: MessageEvent<Call>) => void): void
  postMessage(message: unknown, transfer?: Transferable[]): void
}

/** What a Worker gives to the page: devices as they are there. */
export interface Devices {
  open(options: RemoteOptions): Promise<Target>
  find(options: object): Promise<unknown>
}

/** The Worker's side of remoteTarget: holds one target, and does with it what the page asks for. */
export function serveTarget(devices: Devices, port: Port = globalThis as unknown as Port): void {
  let target: Target
  /** What a page made; where making it failed, why: whoever uses it is told. */
  const buffers = new Map<number, Buffer | Error>()
  const executables = new Map<number, Executable>()
  const running = new Map<number, AbortController>()
  let profile: { readonly end: () => void; readonly profiles: Promise<KernelProfile[]> } | null = null

  const bufferOf = (id: number): Buffer => {
    const buffer = buffers.get(id)!
    if (buffer instanceof Error) throw buffer
    return buffer
  }

  const methods = {
    async open(options: RemoteOptions, lock: string): Promise<Opened> {
      await hold(lock)
      const onCompile = (progress: CompileProgress) => port.postMessage({ event: progress })
      target = await devices.open({ ...options, onCompile })
      const { name, info, profile, conversions } = target
      return { name, info, ops: supported(target), profiles: profile !== undefined, conversions }
    },
    find: (options: object) => devices.find(options),
    create(id: number, type: TensorType, name: string): void {
      try {
        buffers.set(id, target.create(type, name))
      } catch (error) {
        buffers.set(id, error as Error)
      }
    },
    write: (id: number, bytes: Uint8Array, byteOffset: number, blocks?: FileBlocks) =>
      target.write(bufferOf(id), bytes, byteOffset, blocks),
    read: (id: number, byteOffset: number, bytes: number) => target.read(bufferOf(id), byteOffset, bytes),
    free(id: number): void {
      const buffer = buffers.get(id)
      buffers.delete(id)
      if (buffer && !(buffer instanceof Error)) target.free(buffer)
    },
    async compile(id: number, program: Program, bound: Readonly<Record<string, number>>) {
      const own = Object.fromEntries(Object.entries(bound).map(([name, buffer]) => [name, bufferOf(buffer)]))
      const executable = await target.compile(program, own)
      executables.set(id, executable)
      return executable.memory
    },
    unload(id: number): void {
      executables.get(id)?.free()
      executables.delete(id)
    },
    scratchBytes: (programs: readonly Program[]) => target.scratchBytes(programs),
    abort: (call: number) => running.get(call)?.abort(),
    async profileBegin(): Promise<void> {
      if (profile) throw new DeviceError('profile: another one is under way')
      const [begun, ended] = [signal(), signal()]
      const profiles = target.profile!(async () => {
        begun.give()
        await ended.given
      })
      await Promise.race([begun.given, profiles])
      profile = { end: ended.give, profiles }
    },
    profileEnd(): Promise<KernelProfile[]> {
      const { end, profiles } = profile!
      profile = null
      end()
      return profiles
    },
    close: () => target.close(),
  }

  async function run(call: number, id: number, inputs: RunInputs, options: SentRunOptions) {
    const controller = new AbortController()
    running.set(call, controller)
    try {
      return await executables.get(id)!.run(inputs, { ...options, signal: controller.signal })
    } finally {
      running.delete(call)
    }
  }

  async function answer({ id, method, args }: Call): Promise<void> {
    const value =
      method === 'run'
        ? await run(id!, ...(args as [number, RunInputs, SentRunOptions]))
        : await (methods[method as keyof typeof methods] as (...args: readonly unknown[]) => unknown)(...args)
    if (id !== undefined) port.postMessage({ id, value }, transferable(method, value))
  }

  port.addEventListener('message', ({ data }) => {
    answer(data).catch((error) => port.postMessage({ id: data.id, error: sent(error) }))
  })
}

/** A promise that is kept from outside. */
function signal(): { readonly given: Promise<void>; readonly give: () => void } {
  let give = () => {}
  const given = new Promise<void>((resolve) => {
    give = resolve
  })
  return { given, give }
}

/** Takes a lock and keeps it until this Worker is gone. */
const hold = (lock: string): Promise<void> =>
  new Promise((held) => {
    const locks = locksOf(globalThis)
    if (!locks) return held()
    void locks.request(lock, () => {
      held()
      return new Promise(() => {})
    })
  })

/** Copies that nobody else has. */
function transferable(method: string, value: unknown): Transferable[] {
  if (method === 'read') return [value as ArrayBuffer]
  if (method !== 'run') return []
  return [
    ...new Set(Object.values(value as Record<string, ArrayBufferView>).map(({ buffer }) => buffer as ArrayBuffer)),
  ]
}

/** Each op with the arguments of its first case. */
function supported(target: Target): Opened['ops'] {
  return Object.fromEntries(
    (Object.keys(ops) as OpName[]).map((name) => {
      const [{ inputs, attrs }] = ops[name].cases
      return [
        name,
        target.supports(
          name,
          inputs.map(({ type }) => type),
          attrs,
        ),
      ]
    }),
  )
}
