import { Undefined } from './values.ts'

/** What one rendering may use up. */
export interface Limits {
  /** Counts a value that was made, and the time. Throws where it is too much. */
  check(made: unknown): void
}

export class Scope {
  readonly variables = new Map<string, unknown>()
  readonly limits: Limits
  private readonly outer: Scope | null

  constructor(limits: Limits, outer: Scope | null = null) {
    this.limits = limits
    this.outer = outer
  }

  inner(): Scope {
    return new Scope(this.limits, this)
  }

  get(name: string): unknown {
    for (let scope: Scope | null = this; scope; scope = scope.outer)
      if (scope.variables.has(name)) return scope.variables.get(name)
    return new Undefined(`'${name}' is undefined`)
  }
}

export type Expression = (scope: Scope) => unknown
/** 'break' and 'continue' go up to their loop. */
export type Signal = 'break' | 'continue' | undefined
export type Statement = (scope: Scope, out: string[]) => Signal

/** What statements write, as a text of its own. */
export function captured(body: Statement, scope: Scope): string {
  const out: string[] = []
  body(scope, out)
  const written = out.join('')
  scope.limits.check(written)
  return written
}
