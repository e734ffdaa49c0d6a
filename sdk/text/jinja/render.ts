import { type Limits, Scope, type Statement } from './scope.ts'
import { compile } from './statements.ts'
import { strftime } from './strftime.ts'
import { type Callable, fromJson, integer, Namespace, Range, str, text } from './values.ts'

export type Template = Statement
export { compile }

/** Milliseconds; numbers in a range; characters of a value, and of all that one rendering makes. A member of a list counts for 16. */
const limits = { time: 1000, range: 100_000, value: 2 ** 21, made: 2 ** 26 }

/**
 * The text of a template, as jinja2 gives it in the environment that transformers sets up. The template may be a stranger's: none
 * loops for ever, or uses up the memory.
 *
 * @throws Error for what jinja2 throws for too, what is not supported, and what takes too long
 */
export function render(template: Template, variables: Readonly<Record<string, unknown>>): string {
  const own = new Map(Object.entries(variables).map(([name, value]) => [name, fromJson(value)]))
  const scope = new Scope(limitsOf([...own.values()].reduce<number>((sum, value) => sum + sizeOf(value), 0)))
  for (const [name, value] of [...globals, ...own]) scope.variables.set(name, value)
  const out: string[] = []
  template(scope, out)
  return out.join('')
}

/** Characters, about. */
function sizeOf(value: unknown): number {
  if (typeof value === 'string') return value.length
  if (!(value instanceof Map) && !Array.isArray(value)) return 8
  let size = 0
  for (const item of value.values()) size += sizeOf(item) + 8
  return size
}

/** `given`: characters of the variables. */
function limitsOf(given: number): Limits {
  const end = performance.now() + limits.time
  const [most, mostMade] = [limits.value + 4 * given, limits.made + 64 * given]
  let made = 0
  return {
    check(value) {
      if (performance.now() > end) throw new Error(`it takes longer than ${limits.time} ms`)
      const length = typeof value === 'string' ? value.length : Array.isArray(value) ? 16 * value.length : 0
      made += length
      if (length > most || made > mostMade) throw new Error('it makes too much text')
    },
  }
}

const globals = new Map<string, Callable>([
  [
    'raise_exception',
    ([message]) => {
      throw new Error(str(message))
    },
  ],
  ['strftime_now', ([format]) => strftime(text(format, 'the format'))],
  ['range', range],
  ['dict', dict],
  [
    'namespace',
    (args, named) => {
      const space = new Namespace()
      for (const [key, value] of dict(args, named) as Map<string, unknown>) space.members.set(key, value)
      return space
    },
  ],
  ['joiner', joiner],
  ['cycler', cycler],
])

function dict(args: readonly unknown[], named: ReadonlyMap<string, unknown>): unknown {
  const made = new Map<unknown, unknown>()
  const [pairs] = args
  if (pairs instanceof Map) for (const [key, value] of pairs) made.set(key, value)
  else if (Array.isArray(pairs)) for (const [key, value] of pairs as [unknown, unknown][]) made.set(key, value)
  else if (pairs !== undefined) throw new Error('dict() takes a dict, or a list of pairs')
  for (const [key, value] of named) made.set(key, value)
  return made
}

function range(args: readonly unknown[]): Range {
  const [a, b, step = 1] = args.map((arg) => integer(arg, 'range()'))
  const [from, to] = b === undefined ? [0, a] : [a, b]
  if (step === 0 || a === undefined)
    throw new Error('range() takes a stop, a start and a stop, or these with a step that is not 0')
  const count = Math.max(0, Math.ceil((to - from) / step))
  if (count > limits.range) throw new Error(`range() of ${count} numbers`)
  return Range.over(from, to, step)
}

/** Nothing the first time, then the separator. */
function joiner([separator = ', ']: readonly unknown[]): unknown {
  let isUsed = false
  return () => {
    const text = isUsed ? separator : ''
    isUsed = true
    return text
  }
}

function cycler(items: readonly unknown[]): unknown {
  let at = 0
  const members: Readonly<Record<string, () => unknown>> = {
    current: () => items[at],
    next: () => () => {
      const item = items[at]
      at = (at + 1) % items.length
      return item
    },
    reset: () => () => {
      at = 0
      return null
    },
  }
  return Object.assign(() => null, {
    member: (name: string) => (Object.hasOwn(members, name) ? members[name]() : undefined),
  })
}
