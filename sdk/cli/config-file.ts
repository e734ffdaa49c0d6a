import { stringify } from 'yaml'
import { snakeCase } from './names.ts'
import { explain, type KeyTable } from './settings.ts'

/**
 * Keys that belong together, for a config file: each with what it means, those that are not set behind a # with their
 * default, or with an example where there is none.
 */
export function configSection(
  heading: string,
  keys: KeyTable,
  set: Readonly<Record<string, unknown>>,
  defaults: Readonly<Record<string, unknown>>,
  examples: Readonly<Record<string, unknown>>,
): string {
  const entries = Object.entries(keys).map(([key, schema]) => {
    const value = [set[key], defaults[key], examples[key]].find((known) => known !== undefined)
    const line = stringify({ [snakeCase(key)]: value }, { collectionStyle: 'flow', lineWidth: 0, compat: 'yaml-1.1' })
    return `# ${explain(schema)}\n${set[key] === undefined ? '#' : ''}${line.slice(2, -3)}\n`
  })
  return `## ${heading}\n\n${entries.join('\n')}`
}
