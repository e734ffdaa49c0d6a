import { MemoryError } from '../../sdk/errors.ts'

const page = 65536
const alignment = 64

/** Pages that a memory may grow to: what wasm32 can have, and less for a browser that does not give the addresses. */
const maxima = [65536, 49152, 32768, 16384]

/** Static data of the kernels lies below; then one page for the threads' control block; then the heap. */
export const controlBase = 1 << 20
const heapBase = controlBase + page

interface Block {
  ptr: number
  bytes: number
}

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`

/** As many addresses as are given. Throws MemoryError. */
function reserve(initial: number, shared: boolean): { memory: WebAssembly.Memory; limit: number } {
  for (const maximum of maxima)
    try {
      return { memory: new WebAssembly.Memory({ initial, maximum, shared }), limit: maximum * page }
    } catch {}
  throw new MemoryError(`wasm: the runtime does not give ${mebibytes(maxima.at(-1)! * page)} of addresses`)
}

/** The wasm memory and its heap: best fit, 64-byte aligned, neighbours merged, grown on demand and never shrunk. */
export class Heap {
  readonly memory: WebAssembly.Memory
  /** Bytes that it may grow to. */
  readonly limit: number
  /** Bytes handed out. */
  used = 0
  /** Sorted by address, never touching each other. */
  private readonly gaps: Block[] = []
  private readonly sizes = new Map<number, number>()
  private end: number
  /** Addresses from here on were never handed out: still zero. */
  private fresh = heapBase

  constructor(shared: boolean) {
    const initial = heapBase / page + 1
    const { memory, limit } = reserve(initial, shared)
    this.memory = memory
    this.limit = limit
    this.end = initial * page
    this.gaps.push({ ptr: heapBase, bytes: this.end - heapBase })
  }

  /** Address of `bytes` bytes with whatever was there before. Throws MemoryError that names `name`. */
  allocate(bytes: number, name: string): number {
    const size = Math.max(alignment, Math.ceil(bytes / alignment) * alignment)
    if (!Number.isSafeInteger(bytes) || bytes < 0) throw new MemoryError(`${name}: ${bytes} is not a number of bytes`)
    let best = this.bestGap(size)
    if (!best) {
      this.grow(size, name)
      best = this.bestGap(size)!
    }
    const { ptr } = best
    best.ptr += size
    best.bytes -= size
    if (best.bytes === 0) this.gaps.splice(this.gaps.indexOf(best), 1)
    this.sizes.set(ptr, size)
    this.used += size
    return ptr
  }

  /** As `allocate`, zero-filled. */
  allocateZeroed(bytes: number, name: string): number {
    const ptr = this.allocate(bytes, name)
    const size = this.sizes.get(ptr)!
    const dirty = Math.min(size, this.fresh - ptr)
    if (dirty > 0) this.bytes(ptr, dirty).fill(0)
    this.fresh = Math.max(this.fresh, ptr + size)
    return ptr
  }

  free(ptr: number): void {
    const bytes = this.sizes.get(ptr)
    if (bytes === undefined) return
    this.sizes.delete(ptr)
    this.used -= bytes
    this.fresh = Math.max(this.fresh, ptr + bytes)
    this.addGap({ ptr, bytes })
  }

  /** A view that lasts until the memory grows: use it at once. */
  bytes(ptr: number, bytes: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, ptr, bytes)
  }

  private bestGap(size: number): Block | undefined {
    let best: Block | undefined
    for (const gap of this.gaps) if (gap.bytes >= size && (!best || gap.bytes < best.bytes)) best = gap
    return best
  }

  private addGap(gap: Block): void {
    let at = this.gaps.length
    while (at > 0 && this.gaps[at - 1].ptr > gap.ptr) at--
    const [before, after] = [this.gaps[at - 1], this.gaps[at]]
    if (after && gap.ptr + gap.bytes === after.ptr) {
      gap.bytes += after.bytes
      this.gaps.splice(at, 1)
    }
    if (before && before.ptr + before.bytes === gap.ptr) before.bytes += gap.bytes
    else this.gaps.splice(at, 0, gap)
  }

  private grow(size: number, name: string): void {
    const last = this.gaps.at(-1)
    const tail = last && last.ptr + last.bytes === this.end ? last.bytes : 0
    const pages = Math.ceil((size - tail) / page)
    const refuse = (why: string) =>
      new MemoryError(
        `${name}: ${mebibytes(size)} asked for, ${mebibytes(this.used)} of ${mebibytes(this.limit)} in use; ${why}`,
      )
    if (this.end + pages * page > this.limit) throw refuse('use smaller batches, a smaller dtype, or free something')
    try {
      this.memory.grow(pages)
    } catch {
      throw refuse('the runtime refused to grow the memory')
    }
    this.addGap({ ptr: this.end, bytes: pages * page })
    this.end += pages * page
  }
}
