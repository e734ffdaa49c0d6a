import * as errors from '../../sdk/errors.ts'
import type { DeviceInfo, RunOptions, Target } from '../../sdk/target.ts'

// What goes between a page and the Worker that holds its target, beside what structured clones carry.

/** A call with an id is answered. */
export interface Call {
  readonly id?: number
  readonly method: string
  readonly args: readonly unknown[]
}

/** `event`: the progress of a compilation. */
export type Answer =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: SentError }
  | { readonly event: unknown }

/** What a Worker tells of the target that it opened. */
export interface Opened {
  readonly name: Target['name']
  readonly info: DeviceInfo
  /** Whether it has the op, or why not. */
  readonly ops: Readonly<Record<string, true | string>>
  readonly profiles: boolean
  readonly conversions: Target['conversions']
}

/** Without the signal: it goes as a call of its own. */
export type SentRunOptions = Omit<RunOptions, 'signal'>

/** A Worker holds a lock until it ends, however it ends. Absent on insecure origins, and in Node. */
export const locksOf = ({ navigator }: { navigator?: { locks?: LockManager } }): LockManager | undefined =>
  navigator?.locks

/** An error as it was thrown on the other side. */
export interface SentError {
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
  'device-lost': errors.DeviceLostError,
  context: errors.ContextError,
  numeric: errors.NumericError,
}

export function sent(thrown: unknown): SentError {
  if (!(thrown instanceof Error)) return { name: 'Error', message: String(thrown) }
  const { name, message, stack, code, status } = thrown as Error & SentError
  return { name, message, stack, code, status }
}

/** The error that was thrown on the other side, of the SDK's class where it is one of those. */
export function revived({ name, message, stack, code, status }: SentError): Error {
  if (name === 'AbortError') return new DOMException(message, name)
  const own = typeof code === 'string' && Object.hasOwn(classes, code) ? new classes[code](message) : null
  const error = own ?? (typeof code === 'string' ? new errors.HalflingError(code, message) : new Error(message))
  if (!own) error.name = name
  return Object.assign(error, { stack }, status === undefined ? {} : { status })
}
