import { DeviceLostError } from '../sdk/errors.ts'
import type { Target } from '../sdk/target.ts'
import type { Losable } from './train/lost-cases.ts'

/** A target whose device goes away when told to, as a GPU does. */
export function losable(inner: Target): Losable {
  let lost = false
  const check = () => {
    if (lost) throw new DeviceLostError(`${inner.name}: the device was lost (for a test)`)
  }
  /** What it gives counts only if the device is still there then. */
  const guarded = async <T>(work: () => T | Promise<T>): Promise<T> => {
    check()
    const result = await work()
    check()
    return result
  }
  const target: Target = {
    name: inner.name,
    info: inner.info,
    supports: (...args) => inner.supports(...args),
    create: (...args) => inner.create(...args),
    write: (...args) => guarded(() => inner.write(...args)),
    read: (...args) => guarded(() => inner.read(...args)),
    free: (buffer) => inner.free(buffer),
    async compile(program, bound) {
      const executable = await guarded(() => inner.compile(program, bound))
      return {
        memory: executable.memory,
        run: (...args) => guarded(() => executable.run(...args)),
        free: () => executable.free(),
      }
    },
    scratchBytes: (programs) => inner.scratchBytes(programs),
    close: () => inner.close(),
  }
  return {
    target,
    lose() {
      lost = true
    },
  }
}
