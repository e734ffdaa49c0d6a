import { type Endpoint, transferHandlers } from 'comlink'
import * as errors from '../errors.ts'

// What goes between a page and its engine, beside what structured clones carry.

export type { Endpoint }

/** Errors that were thrown on the other side, as they are named there. */
interface Sent {
  readonly name: string
  readonly message: string
  readonly stack?: string
  readonly code?: string | number
  readonly status?: number
}

/** By code: a bundler may give classes other names. */
const classes: Readonly<Record<string, new (message: string) => errors.HalflingError>> = {
  shape: errors.ShapeError,
  format: errors.FormatError,
  data: errors.DataError,
  option: errors.OptionError,
  memory: errors.MemoryError,
  device: errors.DeviceError,
  context: errors.ContextError,
  numeric: errors.NumericError,
  hub: errors.HubError,
  teacher: errors.TeacherError,
  reward: errors.RewardError,
  collapse: errors.CollapseError,
}

function revive({ name, message, stack, code, status }: Sent): Error {
  if (name === 'AbortError') return new DOMException(message, name)
  const own = typeof code === 'string' && Object.hasOwn(classes, code) ? new classes[code](message) : null
  const error = own ?? (typeof code === 'string' ? new errors.HalflingError(code, message) : new Error(message))
  if (!own) error.name = name
  return Object.assign(error, { stack }, status === undefined ? {} : { status })
}

/** Errors keep their class, code and message on the way; comlink's own way leaves a plain Error. Called on both sides. */
export function carryErrors(): void {
  const plain = transferHandlers.get('throw')!
  transferHandlers.set('throw', {
    canHandle: plain.canHandle,
    serialize: (thrown) => {
      const { value } = thrown as { value: unknown }
      if (!(value instanceof Error)) return [{ other: value }, []]
      const { name, message, stack, code, status } = value as Error & Sent
      return [{ error: { name, message, stack, code, status } satisfies Sent }, []]
    },
    deserialize: (sent) => {
      const { error, other } = sent as { error?: Sent; other?: unknown }
      throw error ? revive(error) : other
    },
  })
}
