import { type Failure, failure } from './errors.ts'

export const printJson = (value: object): void => {
  process.stdout.write(`${JSON.stringify(value)}\n`)
}

export const print = (text: string): void => {
  process.stdout.write(`${text}\n`)
}

/** Whatever is not the result goes to standard error. */
export const log = (text: string): void => {
  process.stderr.write(`${text}\n`)
}

/** Tells about an error, as JSON on standard output or in a line on standard error. Returns the exit code. */
export function printFailure(error: unknown, json: boolean): number {
  const told = failure(error)
  if (!told) return 0
  if (json) printJson({ error: { code: told.code, message: told.message } })
  else log(told.code === 'interrupted' ? told.message : `error: ${told.message}`)
  printStack(told)
  return told.exitCode
}

function printStack({ stack }: Failure): void {
  if (stack) log(stack.split('\n').slice(1).join('\n'))
}

/** 12.3, 1,234: for people. */
export const formatNumber = (x: number): string =>
  x.toLocaleString('en-US', { maximumFractionDigits: Math.abs(x) < 100 ? 1 : 0 })

export const formatRate = (rate: number | null): string => (rate === null ? '-' : `${formatNumber(rate)} tokens/s`)
