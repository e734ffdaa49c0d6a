import { readFileSync } from 'node:fs'
import { type Command, Option } from 'commander'
import { parse, stringify } from 'yaml'
import { OptionError } from '../errors.ts'
import { nearest } from '../nearest.ts'
import { explain, type Filled, type OptionTable, readOption, sentence } from '../option-table.ts'
import { UsageError } from './errors.ts'
import { camelCase, kebabCase, snakeCase } from './names.ts'

/** What was said of the keys of a table, by flags or in a file. */
export type Settings<T extends OptionTable> = Partial<Filled<T>>

/** Other names for keys. */
export type Aliases = Readonly<Record<string, string>>

/** A flag for every key, with its default told; `--no-...` turns a boolean off. */
export function addFlags(command: Command, keys: OptionTable): void {
  for (const [key, schema] of Object.entries(keys)) {
    const [name, { type, anyOf }] = [kebabCase(key), explain(schema)]
    if (type === 'boolean') {
      command.addOption(new Option(`--${name} [boolean]`, sentence(schema)))
      command.addOption(new Option(`--no-${name}`).hideHelp())
    } else {
      const takesList = type === 'array' || anyOf?.some((one) => one.type === 'array')
      command.option(`--${name} <${takesList ? 'values...' : 'value'}>`, sentence(schema))
    }
  }
  command.option('--config <file.yaml>', 'the same keys in a file, as learningRate or learning_rate; flags win')
}

/** The settings of a config file with those of the flags over them. Throws OptionError, UsageError. */
export function readSettings<T extends OptionTable>(
  flags: Readonly<Record<string, unknown>>,
  keys: T,
  aliases: Aliases = {},
): Settings<T> {
  const settings: Record<string, unknown> =
    typeof flags.config === 'string' ? { ...readConfig(flags.config, keys, aliases) } : {}
  for (const key of Object.keys(keys)) if (flags[key] !== undefined) settings[key] = readFlag(key, keys, flags[key])
  return settings as Settings<T>
}

/** A flag's text means what it would in YAML (1e-4, true, null, {a: b}); where that does not fit, the text itself. */
function readFlag(key: string, keys: OptionTable, given: unknown): unknown {
  const meant = Array.isArray(given) ? given.map(parseScalar) : parseScalar(given)
  const read = readOption(keys[key], meant)
  if (!('problem' in read)) return read.value
  const asText = readOption(keys[key], given)
  if (!('problem' in asText)) return asText.value
  throw new UsageError(`option '--${kebabCase(key)}': ${read.problem}`)
}

function parseScalar(text: unknown): unknown {
  if (typeof text !== 'string') return text
  try {
    return parse(text)
  } catch {
    return text
  }
}

/** Reads a YAML (or JSON) file of keys. Throws OptionError naming file and key. */
export function readConfig<T extends OptionTable>(file: string, keys: T, aliases: Aliases = {}): Settings<T> {
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
    const read = readOption(keys[key], value)
    // An empty value leaves the default.
    if ('problem' in read && value === null) continue
    if ('problem' in read) throw new OptionError(`${file}: ${written}: ${read.problem}`)
    settings[key] = read.value
  }
  return settings as Settings<T>
}

function keyOf(written: string, keys: OptionTable, aliases: Aliases): string | undefined {
  const name = camelCase(written)
  return Object.hasOwn(keys, name) ? name : Object.hasOwn(aliases, name) ? aliases[name] : undefined
}

function suggestion(written: string, keys: OptionTable, aliases: Aliases): string {
  const near = nearest(camelCase(written), [...Object.keys(keys), ...Object.keys(aliases)])
  if (!near) return ''
  return `; did you mean ${written.includes('_') ? snakeCase(near) : near}?`
}

/**
 * Keys that belong together, for a config file: each with what it means, those that are not set behind a # with their default, or
 * with an example where there is none.
 */
export function configSection(heading: string, keys: OptionTable, set: object): string {
  const entries = Object.entries(keys).map(([key, schema]) => {
    const own = (set as Readonly<Record<string, unknown>>)[key]
    const { default: usual, examples = [] } = explain(schema)
    const value = [own, usual, examples[0]].find((known) => known !== undefined)
    const line = stringify({ [snakeCase(key)]: value }, { collectionStyle: 'flow', lineWidth: 0, compat: 'yaml-1.1' })
    return `# ${sentence(schema)}\n${own === undefined ? '#' : ''}${line.slice(2, -3)}\n`
  })
  return `## ${heading}\n\n${entries.join('\n')}`
}
