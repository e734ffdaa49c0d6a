import { formatBraces } from './format.ts'
import {
  type Callable,
  characters,
  checkLength,
  type Dict,
  equal,
  Group,
  integer,
  iterate,
  keyOf,
  Namespace,
  Range,
  str,
  Tuple,
  text,
  typeName,
  Undefined,
  View,
} from './values.ts'

/** Python's white space, within brackets of a regular expression. */
export const space = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000'
const leading = new RegExp(`^[${space}]+`)
const gap = new RegExp(`[${space}]+`)
const lineEnds = '\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]'

/** Takes off white space, or the characters of a set. */
export function strip(value: string, set: unknown = null, left = true, right = true): string {
  const of = set === null ? null : new Set(text(set, 'what is stripped'))
  const isOff = (letter: string) => (of ? of.has(letter) : leading.test(letter))
  const all = characters(value)
  let [from, to] = [0, all.length]
  while (left && from < to && isOff(all[from])) from++
  while (right && to > from && isOff(all[to - 1])) to--
  return typeof all === 'string' ? all.slice(from, to) : all.slice(from, to).join('')
}

const backwards = (value: string): string => Array.from(value).reverse().join('')

/** Words between white space; after `times` cuts the rest as it is. */
function words(value: string, times: number): string[] {
  const found: string[] = []
  for (let rest = value.replace(leading, ''); rest !== ''; ) {
    const cut = found.length === times ? null : gap.exec(rest)
    found.push(cut ? rest.slice(0, cut.index) : rest)
    rest = cut ? rest.slice(cut.index + cut[0].length) : ''
  }
  return found
}

function split(value: string, separator: unknown, most: unknown, fromEnd: boolean): string[] {
  const times = most === undefined || integer(most) < 0 ? Number.POSITIVE_INFINITY : integer(most)
  if (separator === undefined || separator === null)
    return fromEnd ? words(backwards(value), times).map(backwards).reverse() : words(value, times)
  const by = text(separator, 'a separator')
  if (by === '') throw new Error('the separator is empty')
  const parts = value.split(by)
  if (parts.length - 1 <= times) return parts
  return fromEnd
    ? [parts.slice(0, parts.length - times).join(by), ...parts.slice(parts.length - times)]
    : [...parts.slice(0, times), parts.slice(times).join(by)]
}

export function lines(value: string, keepEnds = false): string[] {
  const found: string[] = []
  let from = 0
  for (const { 0: end, index } of value.matchAll(new RegExp(lineEnds, 'g'))) {
    found.push(value.slice(from, keepEnds ? index + end.length : index))
    from = index + end.length
  }
  if (from < value.length) found.push(value.slice(from))
  return found
}

export function replace(value: string, old: string, by: string, most = -1): string {
  const all = old === '' ? ['', ...value, ''] : value.split(old)
  const times = most < 0 ? all.length - 1 : Math.min(most, all.length - 1)
  checkLength(value.length + times * by.length)
  return all.slice(0, times + 1).join(by) + (times < all.length - 1 ? old : '') + all.slice(times + 1).join(old)
}

export function join(separator: string, items: readonly string[]): string {
  checkLength(items.reduce((sum, item) => sum + item.length + separator.length, 0))
  return items.join(separator)
}

/** A letter at the beginning of a word large, the others small. */
const upperFirst = (word: string): string => {
  const [first = '', ...rest] = word
  const [head = '', ...more] = first.toUpperCase()
  return head + more.join('').toLowerCase() + rest.join('').toLowerCase()
}
export const capitalize = upperFirst

function pad(
  value: string,
  width: unknown,
  fill: unknown = ' ',
  share: (missing: number, width: number) => number,
): string {
  const wide = integer(width, 'a width')
  checkLength(wide)
  const missing = Math.max(0, wide - characters(value).length)
  const before = share(missing, wide)
  const letter = text(fill)
  return letter.repeat(before) + value + letter.repeat(missing - before)
}
export const center = (value: string, width: unknown, fill?: unknown): string =>
  pad(value, width, fill, (missing, wide) => Math.floor(missing / 2) + (missing & wide & 1))

const all =
  (pattern: RegExp) =>
  (value: string): boolean =>
    pattern.test(value)
const hasCase = /[\p{Lu}\p{Ll}\p{Lt}\p{Uppercase}\p{Lowercase}]/u
export const isLower = (value: string): boolean => hasCase.test(value) && !/[\p{Uppercase}\p{Lt}]/u.test(value)
export const isUpper = (value: string): boolean => hasCase.test(value) && !/[\p{Lowercase}\p{Lt}]/u.test(value)

const ends = (what: unknown, is: (one: string) => boolean): boolean =>
  (what instanceof Tuple ? what : [what]).some((one) => is(text(one, 'what a string begins or ends with')))

/** Where one string is in another, by characters. */
function find(value: string, what: unknown, from: unknown, to: unknown, last: boolean): bigint {
  const letters = characters(value)
  const range = sliceOf(letters, from ?? null, to ?? null, null) as string | string[]
  const within = typeof range === 'string' ? range : range.join('')
  const at = last ? within.lastIndexOf(text(what)) : within.indexOf(text(what))
  const start = from === undefined || from === null ? 0 : integer(from)
  const begin = start < 0 ? Math.max(0, letters.length + start) : start
  return at < 0 ? -1n : BigInt(begin + characters(within.slice(0, at)).length)
}

function found(at: bigint): bigint {
  if (at < 0n) throw new Error('substring not found')
  return at
}

function parted(value: string, separator: unknown, last: boolean): Tuple {
  const by = text(separator)
  if (by === '') throw new Error('the separator is empty')
  const at = last ? value.lastIndexOf(by) : value.indexOf(by)
  if (at < 0) return Tuple.from(last ? ['', '', value] : [value, '', '']) as Tuple
  return Tuple.from([value.slice(0, at), by, value.slice(at + by.length)]) as Tuple
}

function occurrences(value: string, what: unknown): bigint {
  const part = text(what)
  return BigInt(part === '' ? characters(value).length + 1 : value.split(part).length - 1)
}

type Method<T> = (value: T, args: readonly unknown[], named: ReadonlyMap<string, unknown>) => unknown

const ofStrings: Readonly<Record<string, Method<string>>> = {
  upper: (s) => s.toUpperCase(),
  lower: (s) => s.toLowerCase(),
  casefold: (s) => s.replace(/[ßẞ]/g, 'ss').toLowerCase().replaceAll('ς', 'σ'),
  title: (s) => s.replace(/[\p{L}\p{Lowercase}\p{Uppercase}]+/gu, upperFirst),
  capitalize: upperFirst,
  swapcase: (s) => Array.from(s, (c) => (/\p{Uppercase}/u.test(c) ? c.toLowerCase() : c.toUpperCase())).join(''),
  strip: (s, [set]) => strip(s, set ?? null),
  lstrip: (s, [set]) => strip(s, set ?? null, true, false),
  rstrip: (s, [set]) => strip(s, set ?? null, false, true),
  split: (s, [by, most], named) => split(s, by ?? named.get('sep'), most ?? named.get('maxsplit'), false),
  rsplit: (s, [by, most], named) => split(s, by ?? named.get('sep'), most ?? named.get('maxsplit'), true),
  splitlines: (s, [keep], named) => lines(s, (keep ?? named.get('keepends')) === true),
  join: (s, [items]) =>
    join(
      s,
      Array.from(iterate(items), (item) => text(item, 'what is joined')),
    ),
  replace: (s, [old, by, most], named) => {
    const times = most ?? named.get('count')
    return replace(s, text(old), text(by), times === undefined ? -1 : integer(times))
  },
  startswith: (s, [what, from, to]) => ends(what, (one) => within(s, from, to).startsWith(one)),
  endswith: (s, [what, from, to]) => ends(what, (one) => within(s, from, to).endsWith(one)),
  removeprefix: (s, [what]) => (s.startsWith(text(what)) ? s.slice(text(what).length) : s),
  removesuffix: (s, [what]) => (text(what) !== '' && s.endsWith(text(what)) ? s.slice(0, -text(what).length) : s),
  find: (s, [what, from, to]) => find(s, what, from, to, false),
  rfind: (s, [what, from, to]) => find(s, what, from, to, true),
  index: (s, [what, from, to]) => found(find(s, what, from, to, false)),
  rindex: (s, [what, from, to]) => found(find(s, what, from, to, true)),
  count: (s, [what, from, to]) => occurrences(within(s, from, to), what),
  partition: (s, [by]) => parted(s, by, false),
  rpartition: (s, [by]) => parted(s, by, true),
  format: (s, args, named) =>
    formatBraces(s, args, named, (value, name, isItem) =>
      member(value, isItem && /^\d+$/.test(name) ? BigInt(name) : name, isItem),
    ),
  center: (s, [width, fill]) => center(s, width, fill),
  ljust: (s, [width, fill]) => pad(s, width, fill, () => 0),
  rjust: (s, [width, fill]) => pad(s, width, fill, (missing) => missing),
  zfill: (s, [width]) =>
    (/^[+-]/.test(s) ? s[0] : '') +
    pad(s.replace(/^[+-]/, ''), BigInt(integer(width) - (/^[+-]/.test(s) ? 1 : 0)), '0', (missing) => missing),
  expandtabs: (s, [size]) => expanded(s, size === undefined ? 8 : integer(size)),
  isdigit: all(/^[\p{Nd}²³¹⁰⁴-⁹₀-₉]+$/u),
  isdecimal: all(/^\p{Nd}+$/u),
  isnumeric: all(/^\p{N}+$/u),
  isalpha: all(/^\p{L}+$/u),
  isalnum: all(/^[\p{L}\p{N}]+$/u),
  isascii: (s) => !/[^\0-\x7f]/.test(s),
  isspace: all(new RegExp(`^[${space}]+$`)),
  islower: isLower,
  isupper: isUpper,
  istitle: (s) => hasCase.test(s) && ofStrings.title(s, [], new Map()) === s,
}

const within = (s: string, from: unknown, to: unknown): string => {
  if (from === undefined) return s
  const part = sliceOf(characters(s), from, to ?? null, null) as string | string[]
  return typeof part === 'string' ? part : part.join('')
}

function expanded(s: string, size: number): string {
  let column = 0
  return Array.from(s, (letter) => {
    if (letter === '\n' || letter === '\r') column = 0
    else if (letter !== '\t') column++
    else {
      const missing = size > 0 ? size - (column % size) : 0
      column += missing
      return ' '.repeat(missing)
    }
    return letter
  }).join('')
}

const ofLists: Readonly<Record<string, Method<readonly unknown[]>>> = {
  index: (list, [item]) => {
    const at = list.findIndex((one) => equal(one, item))
    if (at < 0) throw new Error(`${str(item)} is not in the list`)
    return BigInt(at)
  },
  count: (list, [item]) => BigInt(list.filter((one) => equal(one, item)).length),
  copy: (list) => list.slice(),
}

const ofDicts: Readonly<Record<string, Method<Dict>>> = {
  get: (dict, [key, otherwise = null]) => (dict.has(keyOf(key)) ? dict.get(keyOf(key)) : otherwise),
  items: (dict) =>
    View.named(
      'items',
      Array.from(dict, (pair) => Tuple.from(pair)),
    ),
  keys: (dict) => View.named('keys', dict.keys()),
  values: (dict) => View.named('values', dict.values()),
  copy: (dict) => new Map(dict),
}

/** What a sandbox keeps templates from: they would change what others see. */
const changing = [
  'append',
  'clear',
  'extend',
  'insert',
  'pop',
  'popitem',
  'remove',
  'reverse',
  'setdefault',
  'sort',
  'update',
]

/** What Python has beside: silence about it would be another text. */
const absent: Readonly<Record<string, readonly string[]>> = {
  str: ['encode', 'format_map', 'isidentifier', 'isprintable', 'maketrans', 'translate'],
  dict: ['fromkeys'],
  range: ['start', 'step', 'stop'],
  int: [
    'as_integer_ratio',
    'bit_count',
    'bit_length',
    'conjugate',
    'denominator',
    'imag',
    'numerator',
    'real',
    'to_bytes',
  ],
  float: ['as_integer_ratio', 'conjugate', 'fromhex', 'hex', 'imag', 'is_integer', 'real'],
}

function method(value: unknown, name: string): Callable | undefined {
  const bind = <T>(methods: Readonly<Record<string, Method<T>>>): Callable | undefined =>
    Object.hasOwn(methods, name) ? (args, named) => methods[name](value as T, args, named) : undefined
  const isChanging = (Array.isArray(value) || value instanceof Map) && changing.includes(name)
  if (isChanging && !(value instanceof Tuple) && !(value instanceof View))
    return () => {
      throw new Error(`.${name}() changes a ${typeName(value)}, which templates may not do`)
    }
  if (absent[typeName(value)]?.includes(name)) throw new Error(`.${name} of a ${typeName(value)} is not supported`)
  if (typeof value === 'string') return bind(ofStrings)
  if (value instanceof Map) return bind(ofDicts)
  return Array.isArray(value) && !(value instanceof View) && !(value instanceof Tuple && name === 'copy')
    ? bind(ofLists)
    : undefined
}

/** value.name, or with `isItem` value[name]: Undefined where there is neither. */
export function member(value: unknown, name: unknown, isItem = false): unknown {
  if (value instanceof Undefined) throw new Error(value.what)
  const none = () => new Undefined(`a ${typeName(value)} has no '${str(name)}'`)
  if (isItem) {
    const item = itemOf(value, name)
    if (item !== undefined) return item
  }
  if (typeof name !== 'string') return none()
  if (value instanceof Namespace) return value.members.has(name) ? value.members.get(name) : none()
  if (value instanceof Group && (name === 'grouper' || name === 'list')) return value[name === 'list' ? 1 : 0]
  if (typeof value === 'function') return (value as Callable).member?.(name) ?? none()
  const own = method(value, name) ?? (isItem ? undefined : itemOf(value, name))
  return own === undefined ? none() : own
}

/** undefined: there is none. */
function itemOf(value: unknown, key: unknown): unknown {
  if (value instanceof Map) return value.get(keyOf(key))
  if ((typeof value !== 'string' && !Array.isArray(value)) || value instanceof View) return undefined
  if (typeof key !== 'bigint' && typeof key !== 'boolean') return undefined
  const all = typeof value === 'string' ? characters(value) : value
  const at = Number(key) + (Number(key) < 0 ? all.length : 0)
  return all[at]
}

/** value[from:to:step] of a list or a string. */
export function sliceOf(value: unknown, from: unknown, to: unknown, step: unknown): unknown {
  if (value instanceof Undefined) throw new Error(value.what)
  if ((typeof value !== 'string' && !Array.isArray(value)) || value instanceof View)
    return new Undefined(`a ${typeName(value)} has no slices`)
  const all = typeof value === 'string' ? characters(value) : value
  const by = step === null ? 1 : integer(step, 'a step')
  if (by === 0) throw new Error('the step of a slice is 0')
  const [low, high] = by > 0 ? [0, all.length] : [-1, all.length - 1]
  const place = (at: unknown, otherwise: number) => {
    if (at === null) return otherwise
    const index = integer(at, 'a place in a slice')
    return Math.min(high, Math.max(low, index < 0 ? index + all.length : index))
  }
  const [start, end] = by > 0 ? [place(from, low), place(to, high)] : [place(from, high), place(to, low)]
  if (value instanceof Range) {
    const [first, , each] = value.bounds
    return Range.over(first + start * each, first + end * each, each * by)
  }
  if (by === 1) {
    const part = all.slice(start, Math.max(start, end))
    return typeof value === 'string' && typeof part !== 'string' ? part.join('') : part
  }
  const picked: unknown[] = value instanceof Tuple ? new Tuple() : []
  for (let i = start; by > 0 ? i < end : i > end; i += by) picked.push(all[i])
  return typeof value === 'string' ? picked.join('') : picked
}
