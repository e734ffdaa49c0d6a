import { readFileSync } from 'node:fs'
import { type Command, Option } from 'commander'
import { parse } from 'yaml'
import { z } from 'zod'
import { OptionError } from '../errors.ts'
import { nearest } from '../nearest.ts'
import { UsageError } from './errors.ts'
import { camelCase, kebabCase, snakeCase } from './names.ts'

/** What a command takes, as flags, in a YAML file and in code: the type of each key, with its description. */
export type KeyTable = Readonly<Record<string, z.ZodType>>
export type Settings<T extends KeyTable> = { [K in keyof T]?: z.infer<T[K]> }

/** Other names for keys. */
export type Aliases = Readonly<Record<string, string>>

const isBoolean = (schema: z.ZodType): boolean => schema instanceof z.ZodBoolean
const takesList = (schema: z.ZodType): boolean => schema instanceof z.ZodArray || schema instanceof z.ZodUnion

/** A flag for every key, with its default told; `--no-...` turns a boolean off. */
export function addFlags(command: Command, keys: KeyTable, defaults: Readonly<Record<string, unknown>> = {}): void {
  for (const [key, schema] of Object.entries(keys)) {
    const name = kebabCase(key)
    const description = withDefault(explain(schema), defaults[key])
    if (isBoolean(schema)) {
      command.addOption(new Option(`--${name} [boolean]`, description))
      command.addOption(new Option(`--no-${name}`).hideHelp())
    } else command.option(takesList(schema) ? `--${name} <values...>` : `--${name} <value>`, description)
  }
  command.option('--config <file.yaml>', 'the same keys in a file, as learningRate or learning_rate; flags win')
}

/** What a key means, and the values that it may have where they are few. */
export function explain(schema: z.ZodType): string {
  const { description = '' } = schema
  return schema instanceof z.ZodEnum ? `${description}: ${schema.options.join(', ')}` : description
}

function withDefault(description: string, value: unknown): string {
  const isTold = typeof value === 'number' || typeof value === 'string' || value === true
  return isTold && !description.includes('default:') ? `${description} (default: ${value})` : description
}

/** The settings of a config file with those of the flags over them. Throws OptionError, UsageError. */
export function readSettings<T extends KeyTable>(
  flags: Readonly<Record<string, unknown>>,
  keys: T,
  aliases: Aliases = {},
): Settings<T> {
  const fromFile = typeof flags.config === 'string' ? readConfig(flags.config, keys, aliases) : {}
  const fromFlags: Record<string, unknown> = {}
  for (const key of Object.keys(keys))
    if (flags[key] !== undefined) fromFlags[key] = readFlag(key, keys[key], flags[key])
  return { ...fromFile, ...fromFlags } as Settings<T>
}

/** A flag's text means what it would in YAML (1e-4, true, null, {a: b}); where that does not fit, the text itself. */
function readFlag(key: string, schema: z.ZodType, given: unknown): unknown {
  if (typeof given !== 'string') {
    const result = schema.safeParse(given)
    if (result.success) return result.data
    throw new UsageError(`option '--${kebabCase(key)}': ${problem(result.error)}`)
  }
  const result = schema.safeParse(parseScalar(given))
  if (result.success) return result.data
  const asText = schema.safeParse(given)
  if (asText.success) return asText.data
  throw new UsageError(`option '--${kebabCase(key)}' argument '${given}': ${problem(result.error)}`)
}

function parseScalar(text: string): unknown {
  try {
    return parse(text)
  } catch {
    return text
  }
}

/** Reads a YAML file of keys. Throws OptionError naming file and key. */
export function readConfig<T extends KeyTable>(file: string, keys: T, aliases: Aliases = {}): Settings<T> {
  let given: unknown
  try {
    given = parse(readFileSync(file, 'utf8'))
  } catch (error) {
    throw new OptionError(`${file}: ${(error as Error).message}`)
  }
  if (given === null || given === undefined) return {} as Settings<T>
  if (typeof given !== 'object' || Array.isArray(given)) throw new OptionError(`${file}: it is not a map of keys`)
  const settings: Record<string, unknown> = {}
  for (const [written, value] of Object.entries(given)) {
    const key = keyOf(written, keys, aliases)
    if (!key) throw new OptionError(`${file}: unknown key '${written}'${suggestion(written, keys, aliases)}`)
    if (key in settings) throw new OptionError(`${file}: '${written}' is given twice (as ${key})`)
    const result = keys[key].safeParse(value)
    // An empty value leaves the default.
    if (!result.success && value === null) continue
    if (!result.success) throw new OptionError(`${file}: ${written}: ${problem(result.error)}`)
    settings[key] = result.data
  }
  return settings as Settings<T>
}

function keyOf(written: string, keys: KeyTable, aliases: Aliases): string | undefined {
  const name = camelCase(written)
  return Object.hasOwn(keys, name) ? name : Object.hasOwn(aliases, name) ? aliases[name] : undefined
}

function suggestion(written: string, keys: KeyTable, aliases: Aliases): string {
  const near = nearest(camelCase(written), [...Object.keys(keys), ...Object.keys(aliases)])
  if (!near) return ''
  return `; did you mean ${written.includes('_') ? snakeCase(near) : near}?`
}

const problem = (error: z.ZodError): string => error.issues[0].message.replace(/^Invalid (input|option): /, '')
