import { OptionError } from './errors.ts'
import { checkKeys, shown } from './options.ts'
import { z } from './zod.ts'

/**
 * Options by name. All that is known of one is in its schema: type and range, what holds where it is left out (`default`), and a
 * sentence (`describe`). Constructors, flags, files of settings and docs/api.md read it.
 */
export type OptionTable = Readonly<Record<string, z.ZodType>>

/** What people give. */
export type Given<T extends OptionTable> = Readonly<z.input<z.ZodObject<T>>>

/** The same with the defaults filled in. */
export type Filled<T extends OptionTable> = Readonly<z.output<z.ZodObject<T>>>

/** With the defaults filled in. Throws OptionError naming the first option that is unknown or out of range. */
export function fillOptions<T extends OptionTable>(table: T, given: Given<T>, what: string): Filled<T> {
  checkKeys(given, Object.keys(table), what)
  const filled: Record<string, unknown> = {}
  for (const [name, schema] of Object.entries(table)) {
    const result = readOption(schema, (given as Record<string, unknown>)[name])
    if ('problem' in result) throw new OptionError(`${name}: ${result.problem}`)
    if (result.value !== undefined) filled[name] = result.value
  }
  return filled as Filled<T>
}

/** The value of an option, or what is wrong with it: `1.5 is not an integer from 1`. */
export function readOption(schema: z.ZodType, given: unknown): { value: unknown } | { problem: string } {
  const result = schema.safeParse(given)
  if (result.success) return { value: result.data }
  const { path } = result.error.issues[0]
  let [value, type]: [unknown, OptionSchema] = [given, explain(schema)]
  for (const key of path)
    [value, type] = [(value as Record<PropertyKey, unknown>)[key], (type.items ?? type.additionalProperties)!]
  const written = typeof value === 'object' && value !== null ? JSON.stringify(value) : shown(value)
  return { problem: `${path.map((key) => `${String(key)}: `).join('')}${written} is not ${wanted(type)}` }
}

/** An option as JSON Schema. */
export interface OptionSchema {
  readonly description?: string
  readonly default?: unknown
  readonly examples?: readonly unknown[]
  readonly type?: string
  readonly enum?: readonly string[]
  readonly const?: unknown
  readonly anyOf?: readonly OptionSchema[]
  readonly items?: OptionSchema
  readonly additionalProperties?: OptionSchema
  readonly minLength?: number
  readonly minimum?: number
  readonly exclusiveMinimum?: number
  readonly maximum?: number
  readonly exclusiveMaximum?: number
}

export const explain = (schema: z.ZodType): OptionSchema => z.toJSONSchema(schema, { io: 'input' }) as OptionSchema

/** What a value has to be, in words. */
export function wanted(s: OptionSchema): string {
  if (s.anyOf) return s.anyOf.map(wanted).join(' or ')
  if (s.enum) return s.enum.length > 1 ? `one of ${s.enum.join(', ')}` : s.enum[0]
  if (s.const !== undefined) return String(s.const)
  if (s.type === 'boolean') return 'true or false'
  if (s.type === 'string') return s.minLength === undefined ? 'a text' : 'a text that is not empty'
  if (s.type === 'array') return `a list of ${many(s.items!)}`
  if (s.type === 'object') return `a map of names to ${many(s.additionalProperties!)}`
  if (s.type !== 'integer' && s.type !== 'number') return String(s.type)
  const bounds = [
    [s.minimum, 'from'],
    [s.exclusiveMinimum, 'above'],
    [s.maximum, 'to'],
    [s.exclusiveMaximum, 'below'],
  ] as const
  const range = bounds.filter(([bound]) => bound !== undefined && Math.abs(bound) < Number.MAX_SAFE_INTEGER)
  return [s.type === 'integer' ? 'an integer' : 'a number', ...range.map(([bound, word]) => `${word} ${bound}`)].join(
    ' ',
  )
}

const many = (s: OptionSchema): string => wanted(s).replace(/^an? (\w+)/, '$1s')

/** The sentence, the range of a number and the words to choose from, and the default. */
export function sentence(schema: z.ZodType): string {
  const s = explain(schema)
  const range = s.type === 'integer' || s.type === 'number' || s.enum || s.anyOf?.some((one) => one.type === 'integer')
  const value = typeof s.default === 'string' ? s.default : JSON.stringify(s.default)
  const more = [range ? wanted(s) : '', s.default === undefined ? '' : `default: ${value}`].filter(Boolean)
  return more.length > 0 ? `${s.description} (${more.join('; ')})` : (s.description ?? '')
}
