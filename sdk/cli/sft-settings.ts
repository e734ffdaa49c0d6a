import { readFileSync } from 'node:fs'
import { type Command, Option } from 'commander'
import { parse } from 'yaml'
import type { z } from 'zod'
import { OptionError } from '../errors.ts'
import { UsageError } from './errors.ts'
import { camelCase, kebabCase } from './names.ts'
import { nearest } from './nearest.ts'
import { aliases, isBoolean, type Key, keys, type SftSettings, takesList } from './sft-keys.ts'

const allKeys = Object.keys(keys) as Key[]

/** A flag for every key (or for some of them); `--no-...` turns a boolean off. */
export function addSftFlags(command: Command, some: readonly Key[] = allKeys): void {
  for (const key of some) {
    const name = kebabCase(key)
    const { description } = keys[key] as z.ZodType
    if (isBoolean(key)) {
      command.addOption(new Option(`--${name} [boolean]`, description).preset(true))
      command.addOption(new Option(`--no-${name}`).hideHelp())
    } else command.option(takesList(key) ? `--${name} <values...>` : `--${name} <value>`, description)
  }
  command.option('--config <file.yaml>', 'the same keys in a file, as learningRate or learning_rate; flags win')
}

/** The settings of a config file with those of the flags over them. Throws OptionError, UsageError. */
export function readSettings(flags: Readonly<Record<string, unknown>>): SftSettings {
  const fromFile = typeof flags.config === 'string' ? readConfig(flags.config) : {}
  const fromFlags: Record<string, unknown> = {}
  for (const key of allKeys) if (flags[key] !== undefined) fromFlags[key] = readFlag(key, flags[key])
  return { ...fromFile, ...fromFlags }
}

/** A flag's text means what it would in YAML (1e-4, true, null, {a: b}); where that does not fit, the text itself. */
function readFlag(key: Key, given: unknown): unknown {
  const schema = keys[key] as z.ZodType
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
export function readConfig(file: string): SftSettings {
  let given: unknown
  try {
    given = parse(readFileSync(file, 'utf8'))
  } catch (error) {
    throw new OptionError(`${file}: ${(error as Error).message}`)
  }
  if (given === null || given === undefined) return {}
  if (typeof given !== 'object' || Array.isArray(given)) throw new OptionError(`${file}: it is not a map of keys`)
  const settings: Record<string, unknown> = {}
  for (const [written, value] of Object.entries(given)) {
    const key = keyOf(written)
    if (!key) throw new OptionError(`${file}: unknown key '${written}'${suggestion(written)}`)
    if (key in settings) throw new OptionError(`${file}: '${written}' is given twice (as ${key})`)
    const result = (keys[key] as z.ZodType).safeParse(value)
    // An empty value leaves the default.
    if (!result.success && value === null) continue
    if (!result.success) throw new OptionError(`${file}: ${written}: ${problem(result.error)}`)
    settings[key] = result.data
  }
  return settings
}

function keyOf(written: string): Key | undefined {
  const name = camelCase(written)
  return Object.hasOwn(keys, name) ? (name as Key) : Object.hasOwn(aliases, name) ? aliases[name] : undefined
}

function suggestion(written: string): string {
  const near = nearest(camelCase(written), [...allKeys, ...Object.keys(aliases)])
  if (!near) return ''
  return `; did you mean ${written.includes('_') ? kebabCase(near).replaceAll('-', '_') : near}?`
}

const problem = (error: z.ZodError): string => error.issues[0].message.replace(/^Invalid (input|option): /, '')
