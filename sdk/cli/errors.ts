import { CommanderError } from 'commander'
import { HalflingError, OptionError } from '../errors.ts'

/** The command line itself is wrong: exit code 2. */
export class UsageError extends OptionError {}

/** Ctrl-C: exit code 130. */
export class Interrupted extends Error {
  constructor(message = 'interrupted') {
    super(message)
  }
}

export interface Failure {
  readonly exitCode: number
  readonly code: string
  readonly message: string
  /** Only of errors that nobody threw on purpose. */
  readonly stack?: string
}

/** What to tell about an error; null where there is nothing to tell (help and version were printed). */
export function failure(error: unknown): Failure | null {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return null
    return { exitCode: 2, code: 'usage', message: error.message.replace(/^error: /, '') }
  }
  if (error instanceof UsageError) return { exitCode: 2, code: 'usage', message: error.message }
  if (error instanceof Interrupted) return { exitCode: 130, code: 'interrupted', message: error.message }
  if (error instanceof HalflingError) return { exitCode: 1, code: error.code, message: error.message }
  const { message, stack, code } = error as NodeJS.ErrnoException
  // Errors of the file system say what they are about.
  if (typeof code === 'string') return { exitCode: 1, code, message }
  return { exitCode: 1, code: 'internal', message: message ?? String(error), stack }
}
