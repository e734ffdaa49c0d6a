// onnxruntime's C API through koffi: the calls that are used, each by its place in the table of functions (onnxruntime_c_api.h; places are
// ABI, the table only grows). It runs in place on bound memory and off the JavaScript thread, which its Node binding does not.
import { DeviceError } from '../../../sdk/errors.ts'

/** What onnxruntime made; opaque. */
export type Pointer = unknown
type Call = ((...args: unknown[]) => Pointer) & { async: (...args: unknown[]) => void }

/** Of the table of 1.30; a newer library has it too. */
const apiVersion = 23
export const leastVersion = '1.30.0'
/** The newest that was tried: others must pass the self-test first. */
const testedVersion = '1.30.999'

const out = '_Out_ void **'
/** Place in the table, and what a call takes. All return an OrtStatus, but for those whose name begins with Release. */
const table = {
  CreateEnv: [3, `int level, const char *id, ${out}`],
  CreateSessionOptions: [10, out],
  DisableMemPattern: [17, 'void *options'],
  SetSessionGraphOptimizationLevel: [23, 'void *options, int level'],
  SetIntraOpNumThreads: [24, 'void *options, int threads'],
  CreateRunOptions: [39, out],
  RunOptionsSetTerminate: [46, 'void *options'],
  RunOptionsUnsetTerminate: [47, 'void *options'],
  CreateTensorWithDataAsOrtValue: [
    49,
    `void *info, void *data, size_t bytes, const int64_t *shape, size_t rank, int type, ${out}`,
  ],
  CreateCpuMemoryInfo: [69, `int allocator, int type, ${out}`],
  ReleaseEnv: [92, 'void *'],
  ReleaseStatus: [93, 'void *'],
  ReleaseMemoryInfo: [94, 'void *'],
  ReleaseSession: [95, 'void *'],
  ReleaseValue: [96, 'void *'],
  ReleaseRunOptions: [97, 'void *'],
  ReleaseSessionOptions: [100, 'void *'],
  AddSessionConfigEntry: [130, 'void *options, const char *key, const char *value'],
  RunWithBinding: [133, 'void *session, void *runOptions, void *binding'],
  CreateIoBinding: [134, `void *session, ${out}`],
  ReleaseIoBinding: [135, 'void *'],
  BindInput: [136, 'void *binding, const char *name, void *value'],
  BindOutput: [137, 'void *binding, const char *name, void *value'],
  CreateAndRegisterAllocator: [144, 'void *env, void *info, void *arena'],
  AddInitializer: [150, 'void *options, const char *name, void *value'],
  ReleaseArenaCfg: [157, 'void *'],
  CreateArenaCfgV2: [164, `const char **keys, const size_t *values, size_t count, ${out}`],
  CreatePrepackedWeightsContainer: [166, out],
  ReleasePrepackedWeightsContainer: [167, 'void *'],
  CreateSessionFromArrayWithPrepackedWeightsContainer: [
    169,
    `void *env, const void *model, size_t bytes, void *options, void *packed, ${out}`,
  ],
  AddExternalInitializers: [210, 'void *options, const char **names, void **values, size_t count'],
} as const
type Name = keyof typeof table

/** How many of each kind live: what close() must leave at 0 (a test counts). */
export const alive = new Map<string, number>()
const count = (what: string, by: number) => alive.set(what, (alive.get(what) ?? 0) + by)

/** Every library stays: koffi's functions do not hold it, and one that is unloaded crashes the next call. */
const libraries: unknown[] = []
const opened = new Map<string, Ort>()

export class Ort {
  readonly version: string
  private readonly functions = new Map<Name, Call>()
  private readonly message: (status: Pointer) => string
  /** Making a session frees what glibc would keep: hundreds of megabytes. Other systems give it back by themselves. */
  readonly giveBack: () => void

  private constructor(koffi: typeof import('koffi').default, path: string) {
    let library: ReturnType<typeof koffi.load>
    try {
      library = koffi.load(path)
    } catch (error) {
      throw new DeviceError(`${path} is no onnxruntime library: ${(error as Error).message}`)
    }
    // Names of types are the process's.
    const nth = libraries.push(library)
    const pointerAt = (address: Pointer, i: number): Pointer => koffi.decode(address as never, 8 * i, 'void *')
    const base = library.func('void *OrtGetApiBase()')()
    const versionOf = koffi.decode(pointerAt(base, 1) as never, koffi.proto(`const char *Ort${nth}Version()`))
    this.version = versionOf() as string
    if (isOlder(this.version, leastVersion))
      throw new DeviceError(`${path} is onnxruntime ${this.version}, ${leastVersion} or newer is needed`)
    const api = koffi.decode(pointerAt(base, 0) as never, koffi.proto(`void *Ort${nth}GetApi(uint32_t)`))(apiVersion)
    for (const [name, [place, takes]] of Object.entries(table)) {
      const returns = name.startsWith('Release') ? 'void' : 'void *'
      this.functions.set(
        name as Name,
        koffi.decode(pointerAt(api, place) as never, koffi.proto(`${returns} Ort${nth}${name}(${takes})`)),
      )
    }
    this.giveBack = trimOf(koffi)
    this.message = koffi.decode(pointerAt(api, 2) as never, koffi.proto(`const char *Ort${nth}GetErrorMessage(void *)`))
  }

  get isUntested(): boolean {
    return isOlder(testedVersion, this.version)
  }

  /** A library is loaded once. Throws DeviceError where koffi, or a library that is new enough, is missing. */
  static async open(path: string): Promise<Ort> {
    // Not in the import itself, or bundlers would take it along.
    const name = ['ko', 'ffi'].join('')
    const koffi = (await import(name).catch(() => {
      throw new DeviceError('cpu needs the package koffi beside onnxruntime-node: npm install onnxruntime-node koffi')
    })) as typeof import('koffi')
    const ort = opened.get(path) ?? new Ort(koffi.default, path)
    opened.set(path, ort)
    return ort
  }

  /** Throws DeviceError with `what` it was about. */
  call(name: Name, what: string, ...args: unknown[]): void {
    this.check(this.functions.get(name)!(...args), what)
  }

  /** What a call makes: its last argument. */
  make(name: Name, what: string, ...args: unknown[]): Pointer {
    const made: Pointer[] = [null]
    this.call(name, what, ...args, made)
    count(name, 1)
    return made[0]
  }

  /** On a thread of libuv's pool. */
  async callAside(name: Name, what: string, ...args: unknown[]): Promise<void> {
    const call = this.functions.get(name)!
    const status = await new Promise<Pointer>((resolve, reject) =>
      call.async(...args, (error: Error | null, status: Pointer) => (error ? reject(error) : resolve(status))),
    )
    this.check(status, what)
  }

  async makeAside(name: Name, what: string, ...args: unknown[]): Promise<Pointer> {
    const made: Pointer[] = [null]
    await this.callAside(name, what, ...args, made)
    count(name, 1)
    return made[0]
  }

  /** `made`: the call that made it. */
  release(made: Name, name: Name, pointer: Pointer): void {
    this.functions.get(name)!(pointer)
    count(made, -1)
  }

  private check(status: Pointer, what: string): void {
    if (!status) return
    const message = this.message(status)
    this.functions.get('ReleaseStatus')!(status)
    throw new DeviceError(`${what}: ${message}`)
  }
}

function trimOf(koffi: typeof import('koffi').default): () => void {
  try {
    const trim = koffi.load('libc.so.6').func('int malloc_trim(size_t)')
    return () => trim(0)
  } catch {
    return () => {}
  }
}

function isOlder(version: string, than: string): boolean {
  const [a, b] = [version, than].map((v) => v.split('.').map(Number))
  const at = a.findIndex((part, i) => part !== b[i])
  return at >= 0 && a[at] < b[at]
}
