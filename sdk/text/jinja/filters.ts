import { fixed, formatPercent } from './format.ts'
import { toJson } from './json.ts'
import { capitalize, center, join, lines, member, replace, space, strip } from './methods.ts'
import type { Test } from './tests.ts'
import { testOf } from './tests.ts'
import {
  arithmetic,
  characters,
  checkLength,
  compare,
  defined,
  equal,
  Generator,
  Group,
  integer,
  iterate,
  length,
  str,
  Tuple,
  text,
  truth,
  typeName,
  Undefined,
} from './values.ts'

type Arguments = ReadonlyMap<string, unknown>
type Filter = (value: unknown, args: readonly unknown[], named: Arguments) => unknown

/** The arguments of a filter by name, however they are given. Throws for one too many, and for an unknown name. */
function read(
  name: string,
  names: readonly string[],
  args: readonly unknown[],
  named: Arguments,
): Record<string, unknown> {
  const read: Record<string, unknown> = {}
  if (args.length > names.length)
    throw new Error(`the filter ${name} takes ${names.length} arguments, not ${args.length}`)
  for (const [i, value] of args.entries()) read[names[i]] = value
  for (const [key, value] of named) {
    if (!names.includes(key) || key in read) throw new Error(`the filter ${name} takes no argument '${key}'`)
    read[key] = value
  }
  return read
}

/** A filter whose arguments have names. */
const takes =
  (name: string, names: readonly string[], work: (value: unknown, read: Record<string, unknown>) => unknown): Filter =>
  (value, args, named) =>
    work(value, read(name, names, args, named))

/** "a.b.0" of a value. */
function path(value: unknown, attribute: unknown, otherwise: unknown = null): unknown {
  let item = value
  const parts =
    typeof attribute === 'string'
      ? attribute.split('.').map((part) => (/^\d+$/.test(part) ? BigInt(part) : part))
      : [attribute]
  for (const part of attribute === null || attribute === undefined ? [] : parts) {
    item = member(item, part, true)
    if (item instanceof Undefined && otherwise !== null && otherwise !== undefined) item = otherwise
  }
  return item
}

const folded = (value: unknown): unknown => (typeof value === 'string' ? value.toLowerCase() : value)
const keyed = (caseSensitive: unknown) => (value: unknown) => (truth(caseSensitive ?? false) ? value : folded(value))

/** Stable, as Python sorts; `reverse` leaves equal ones in their order. */
function sorted<T>(items: readonly T[], key: (item: T) => unknown, reverse: unknown): T[] {
  const pairs = items.map((item) => ({ item, key: key(item) }))
  const sign = truth(reverse ?? false) ? -1 : 1
  return pairs.sort((a, b) => sign * compare(a.key, b.key)).map(({ item }) => item)
}

const list = (value: unknown): unknown[] => Array.from(iterate(value))

function extreme(name: string, sign: number): Filter {
  return takes(name, ['case_sensitive', 'attribute'], (value, { case_sensitive, attribute }) => {
    const key = (item: unknown) => keyed(case_sensitive)(path(item, attribute))
    const items = list(value)
    if (items.length === 0) return new Undefined('the sequence is empty')
    return items.reduce((best, item) => (sign * compare(key(item), key(best)) > 0 ? item : best))
  })
}

function* selected(
  value: unknown,
  args: readonly unknown[],
  named: Arguments,
  keeps: boolean,
  ofMember: boolean,
): Generator_ {
  if (!truth(value)) return
  if (ofMember && args.length === 0) throw new Error('the name of a member is missing')
  const [name, ...more] = ofMember ? args.slice(1) : args
  const test: Test = name === undefined ? truth : (item) => testOf(str(name))(item, more, named)
  for (const item of iterate(value))
    if (truth(test(ofMember ? path(item, args[0]) : item, [], named)) === keeps) yield item
}
type Generator_ = globalThis.Generator<unknown, void>

function* mapped(value: unknown, args: readonly unknown[], named: Arguments): Generator_ {
  if (!truth(value)) return
  if (args.length === 0 && named.has('attribute')) {
    const { attribute, default: otherwise } = read('map', ['attribute', 'default'], [], named)
    for (const item of iterate(value)) yield path(item, attribute, otherwise)
    return
  }
  if (args.length === 0) throw new Error('the filter map takes the name of a filter, or attribute=')
  const [name, ...more] = args
  for (const item of iterate(value)) yield filterOf(str(name))(item, more, named)
}

function* unique(value: unknown, attribute: unknown, key: (item: unknown) => unknown): Generator_ {
  const seen: unknown[] = []
  for (const item of iterate(value)) {
    const own = key(path(item, attribute))
    if (seen.some((one) => equal(one, own))) continue
    seen.push(own)
    yield item
  }
}

function* batches(value: unknown, count: number, fill: unknown): Generator_ {
  let batch: unknown[] = []
  for (const item of iterate(value)) {
    if (batch.length === count) {
      yield batch
      batch = []
    }
    batch.push(item)
  }
  checkLength(count)
  if (batch.length > 0 && fill !== null && fill !== undefined) while (batch.length < count) batch.push(fill)
  if (batch.length > 0) yield batch
}

function* columns(value: unknown, count: number, fill: unknown): Generator_ {
  const all = list(value)
  const [each, longer] = [Math.floor(all.length / count), all.length % count]
  let at = 0
  for (let i = 0; i < count; i++) {
    const size = each + (i < longer ? 1 : 0)
    const column = all.slice(at, at + size)
    at += size
    if (fill !== null && fill !== undefined && i >= longer) column.push(fill)
    yield column
  }
}

/** int("12") and int("0x1f", 16); undefined: it is none. */
function parsedInteger(value: string, base: number): bigint | undefined {
  const prefix = { 2: '0b', 8: '0o', 16: '0x' }[base]
  const [, sign, digits] = /^([+-]?)(.*)$/s.exec(strip(value).replace(/(?<=\w)_(?=\w)/g, ''))!
  const plain = prefix && digits.toLowerCase().startsWith(prefix) ? digits.slice(2) : digits
  const letters = '0123456789abcdefghijklmnopqrstuvwxyz'.slice(0, base)
  if (plain === '' || ![...plain.toLowerCase()].every((letter) => letters.includes(letter))) return undefined
  const n = [...plain.toLowerCase()].reduce((sum, letter) => sum * BigInt(base) + BigInt(letters.indexOf(letter)), 0n)
  return sign === '-' ? -n : n
}

/** float("1.5"); undefined: it is none. */
function parsedFloat(value: unknown): number | undefined {
  if (['bigint', 'number', 'boolean'].includes(typeof defined(value))) return Number(value)
  if (typeof value !== 'string') return undefined
  const plain = strip(value)
    .replace(/(?<=\d)_(?=\d)/g, '')
    .toLowerCase()
  const special = /^([+-]?)(inf(?:inity)?|nan)$/.exec(plain)
  if (special) return special[2] === 'nan' ? Number.NaN : Number(`${special[1]}Infinity`)
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/.test(plain) ? Number(plain) : undefined
}

function toInteger(value: unknown, otherwise: unknown, base: number): unknown {
  if (typeof value === 'string') {
    const n = parsedInteger(value, base)
    if (n !== undefined) return n
  }
  if (typeof value === 'bigint') return value
  const x = parsedFloat(value)
  return x === undefined || !Number.isFinite(x) ? otherwise : BigInt(Math.trunc(x))
}

function rounded(value: unknown, precision: number, how: string): unknown {
  if (!['common', 'ceil', 'floor'].includes(how)) throw new Error('round: the method is common, ceil or floor')
  if (!['bigint', 'number', 'boolean'].includes(typeof defined(value)))
    throw new Error(`round: a ${typeName(value)} is no number`)
  const power = 10 ** precision
  if (how !== 'common') return Math[how as 'ceil'](Number(value) * power) / power
  if (typeof value === 'number') {
    if (precision >= 0) return Number(fixed(value, precision))
    return Number(fixed(value * power, 0)) / power
  }
  if (precision >= 0) return BigInt(value as bigint)
  return BigInt(Math.round(Number(fixed(Number(value) * power, 0)) / power))
}

function indented(value: unknown, width: unknown, first: unknown, blank: unknown): string {
  const by = typeof width === 'string' ? width : ' '.repeat(Math.max(0, width === undefined ? 4 : integer(width)))
  const all = lines(`${text(value)}\n`)
  const body = truth(blank ?? false)
    ? join(`\n${by}`, all)
    : join(
        '\n',
        all.map((line, i) => (i > 0 && line !== '' ? by + line : line)),
      )
  return truth(first ?? false) ? by + body : body
}

function truncated(value: unknown, read: Record<string, unknown>): unknown {
  const { length: most = 255n, killwords = false, end = '...', leeway = 5n } = read
  if (value instanceof Undefined) return value
  const [all, room, dots] = [characters(text(value)), integer(most), text(end)]
  if (room < characters(dots).length) throw new Error('truncate: the length is below that of the end')
  if (all.length <= room + integer(leeway)) return value as string
  const cut = Array.from(all)
    .slice(0, room - characters(dots).length)
    .join('')
  if (truth(killwords)) return cut + dots
  const at = cut.lastIndexOf(' ')
  return (at < 0 ? cut : cut.slice(0, at)) + dots
}

const quotedUrl = (value: unknown): string =>
  encodeURIComponent(str(value)).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)

const first: Filter = (value) => {
  for (const item of iterate(value)) return item
  return new Undefined('the sequence is empty')
}
const sized: Filter = (value) => length(value)
const otherwise = takes('default', ['default_value', 'boolean'], (value, { default_value = '', boolean }) =>
  value instanceof Undefined || (truth(boolean ?? false) && !truth(value)) ? default_value : value,
)
const titleWords = new RegExp(`([-${space}({[<]+)`)

const filters: Readonly<Record<string, Filter>> = {
  abs: (value) => {
    if (typeof value === 'number') return Math.abs(value)
    const n = typeof value === 'bigint' ? value : BigInt(integer(value))
    return n < 0n ? -n : n
  },
  attr: (value, [name]) =>
    value instanceof Map && !['get', 'items', 'keys', 'values', 'copy'].includes(str(name))
      ? new Undefined(`a dict has no attribute '${str(name)}'`)
      : member(value, name),
  batch: takes(
    'batch',
    ['linecount', 'fill_with'],
    (value, { linecount, fill_with }) => new Generator(batches(value, integer(linecount), fill_with)),
  ),
  capitalize: (value) => capitalize(str(value)),
  center: takes('center', ['width'], (value, { width = 80n }) => center(str(value), width)),
  count: sized,
  d: otherwise,
  default: otherwise,
  dictsort: takes('dictsort', ['case_sensitive', 'by', 'reverse'], (value, { case_sensitive, by = 'key', reverse }) => {
    if (!(value instanceof Map)) throw new Error(`dictsort: a ${typeName(defined(value))} is no dict`)
    if (by !== 'key' && by !== 'value') throw new Error('dictsort: by is "key" or "value"')
    const pairs = Array.from(value, (pair) => Tuple.from(pair))
    return sorted(pairs, (pair) => keyed(case_sensitive)(pair[by === 'key' ? 0 : 1]), reverse)
  }),
  first,
  float: takes('float', ['default'], (value, { default: none = 0 }) => parsedFloat(value) ?? none),
  format: (value, args, named) => formatPercent(str(value), named.size > 0 ? new Map(named) : Tuple.from(args)),
  groupby: takes(
    'groupby',
    ['attribute', 'default', 'case_sensitive'],
    (value, { attribute, default: none, case_sensitive }) => {
      const key = (item: unknown) => keyed(case_sensitive)(path(item, attribute, none))
      const groups: Group[] = []
      for (const item of sorted(list(value), key, false)) {
        const last = groups.at(-1)
        if (last && equal(key((last[1] as unknown[])[0]), key(item))) (last[1] as unknown[]).push(item)
        else groups.push(Group.from([path(item, attribute, none), [item]]) as Group)
      }
      return groups
    },
  ),
  indent: takes('indent', ['width', 'first', 'blank'], (value, { width, first, blank }) =>
    indented(value, width, first, blank),
  ),
  int: takes('int', ['default', 'base'], (value, { default: none = 0n, base = 10n }) =>
    toInteger(value, none, integer(base)),
  ),
  items: (value) => {
    if (value instanceof Undefined) return new Generator([][Symbol.iterator]())
    if (!(value instanceof Map)) throw new Error(`items: a ${typeName(value)} is no dict`)
    return new Generator(Array.from(value, (pair) => Tuple.from(pair))[Symbol.iterator]())
  },
  join: takes('join', ['d', 'attribute'], (value, { d = '', attribute = null }) =>
    join(
      str(d),
      list(value).map((item) => str(path(item, attribute))),
    ),
  ),
  last: (value) => {
    if (value instanceof Generator) throw new Error('last: a generator has no last item, a list of it has')
    const all = list(value)
    return all.length > 0 ? all.at(-1) : new Undefined('the sequence is empty')
  },
  length: sized,
  list: (value) => list(value),
  lower: (value) => str(value).toLowerCase(),
  map: (value, args, named) => new Generator(mapped(value, args, named)),
  max: extreme('max', 1),
  min: extreme('min', -1),
  reject: (value, args, named) => new Generator(selected(value, args, named, false, false)),
  rejectattr: (value, args, named) => new Generator(selected(value, args, named, false, true)),
  replace: takes('replace', ['old', 'new', 'count'], (value, { old, new: by, count = null }) =>
    replace(str(value), str(old), str(by), count === null ? -1 : integer(count)),
  ),
  reverse: (value) => {
    if (typeof value === 'string') return Array.from(value).reverse().join('')
    const all = list(value).reverse()
    return value instanceof Generator ? all : new Generator(all[Symbol.iterator]())
  },
  round: takes('round', ['precision', 'method'], (value, { precision = 0n, method = 'common' }) =>
    rounded(value, integer(precision), str(method)),
  ),
  safe: (value) => str(value),
  select: (value, args, named) => new Generator(selected(value, args, named, true, false)),
  selectattr: (value, args, named) => new Generator(selected(value, args, named, true, true)),
  slice: takes(
    'slice',
    ['slices', 'fill_with'],
    (value, { slices, fill_with }) => new Generator(columns(value, integer(slices), fill_with)),
  ),
  sort: takes(
    'sort',
    ['reverse', 'case_sensitive', 'attribute'],
    (value, { reverse, case_sensitive, attribute = null }) => {
      const attributes = typeof attribute === 'string' ? attribute.split(',') : [attribute]
      return sorted(list(value), (item) => attributes.map((one) => keyed(case_sensitive)(path(item, one))), reverse)
    },
  ),
  string: (value) => str(value),
  striptags: (value) =>
    strip(str(value).replace(/<!--[\s\S]*?-->|<[^>]*>/g, '')).replace(new RegExp(`[${space}]+`, 'g'), ' '),
  sum: takes('sum', ['attribute', 'start'], (value, { attribute = null, start = 0n }) =>
    list(value).reduce((total, item) => arithmetic('+', total, path(item, attribute)), start),
  ),
  title: (value) =>
    str(value)
      .split(titleWords)
      .map((word) => word.charAt(0).toUpperCase() + word.slice(1).toLowerCase())
      .join(''),
  tojson: (value, args, named) => toJson([value, ...args], named),
  trim: takes('trim', ['chars'], (value, { chars = null }) => strip(str(value), chars)),
  truncate: takes('truncate', ['length', 'killwords', 'end', 'leeway'], truncated),
  unique: takes(
    'unique',
    ['case_sensitive', 'attribute'],
    (value, { case_sensitive, attribute = null }) => new Generator(unique(value, attribute, keyed(case_sensitive))),
  ),
  upper: (value) => str(value).toUpperCase(),
  urlencode: (value) => {
    if (!(value instanceof Map || Array.isArray(value))) return quotedUrl(value).replaceAll('%2F', '/')
    const pairs = value instanceof Map ? [...value] : (value as unknown[][])
    return pairs.map((pair) => pair.map((part) => quotedUrl(part).replaceAll('%20', '+')).join('=')).join('&')
  },
  wordcount: (value) => BigInt(str(value).match(/[\p{L}\p{N}_]+/gu)?.length ?? 0),
}

/** Throws for one that is not there. */
export function filterOf(name: string): Filter {
  if (Object.hasOwn(filters, name)) return filters[name]
  throw new Error(`there is no filter '${name}'`)
}
