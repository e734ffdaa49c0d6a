import { compare, floatText, integer, str, typeName } from './values.ts'

interface Settings {
  readonly ascii: boolean
  /** Of one level; null: all on one line. */
  readonly indent: string | null
  readonly separators: readonly [item: string, key: string]
  readonly sorts: boolean
}

/** json.dumps, as transformers gives it to templates: tojson(x, ensure_ascii, indent, separators, sort_keys). */
export function toJson([value, ...more]: readonly unknown[], named: ReadonlyMap<string, unknown>): string {
  const [ascii = false, indent = null, separators = null, sorts = false] = [
    ...['ensure_ascii', 'indent', 'separators', 'sort_keys'].map((name, i) => more[i] ?? named.get(name)),
  ]
  const given = separators as readonly string[] | null
  return written(value, '\n', {
    ascii: ascii === true,
    indent: indent === null ? null : typeof indent === 'string' ? indent : ' '.repeat(integer(indent, 'indent')),
    separators: given ? [str(given[0]), str(given[1])] : [indent === null ? ', ' : ',', ': '],
    sorts: sorts === true,
  })
}

function written(value: unknown, line: string, settings: Settings): string {
  if (value === null || typeof value === 'boolean') return String(value)
  if (typeof value === 'bigint') return String(value)
  if (typeof value === 'number') return jsonFloat(value)
  if (typeof value === 'string') return jsonText(value, settings.ascii)
  const { indent, separators, sorts } = settings
  const inner = indent === null ? '' : line + indent
  const around = (open: string, parts: readonly string[], close: string): string =>
    parts.length === 0
      ? open + close
      : open + inner + parts.join(separators[0] + inner) + (indent === null ? '' : line) + close
  const below = (item: unknown) => written(item, line + (indent ?? ''), settings)
  if (value instanceof Map) {
    const pairs = sorts ? [...value].sort(([a], [b]) => compare(a, b)) : [...value]
    return around(
      '{',
      pairs.map(([key, item]) => jsonText(keyText(key), settings.ascii) + separators[1] + below(item)),
      '}',
    )
  }
  if (Array.isArray(value) && ['list', 'tuple'].includes(typeName(value)))
    return around('[', Array.from(value, below), ']')
  throw new Error(`tojson: a ${typeName(value)} has no JSON`)
}

const jsonFloat = (value: number): string =>
  Number.isFinite(value) ? floatText(value) : Number.isNaN(value) ? 'NaN' : value > 0 ? 'Infinity' : '-Infinity'

const keyText = (key: unknown): string =>
  typeof key === 'number' ? jsonFloat(key) : key === null || typeof key === 'boolean' ? String(key) : str(key)

function jsonText(value: string, ascii: boolean): string {
  const text = JSON.stringify(value)
  if (!ascii) return text
  return text.replace(/[\x7f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
