import { checkLength, defined, floatText, integer, repr, str, text, typeName } from './values.ts'

// Python's "%5.1f" % x and "{:>5}".format(x).

interface Spec {
  readonly fill?: string
  readonly align?: string
  readonly sign?: string
  readonly hash?: string
  readonly width?: number
  readonly comma?: string
  readonly precision?: number
  readonly type?: string
}

/** With this many digits after the point; a tie goes to the even digit. */
export function fixed(value: number, digits: number): string {
  if (digits > 60 || Math.abs(value) >= 1e21)
    throw new Error(`${floatText(value)} with ${digits} digits is not supported`)
  const exact = value.toFixed(digits + 30)
  const cut = exact.slice(0, digits === 0 ? -31 : -30)
  const isTie = /^50*$/.test(exact.slice(-30))
  return isTie && /[02468]$/.test(cut) ? cut : isTie ? awayFromZero(cut, digits) : value.toFixed(digits)
}

function awayFromZero(cut: string, digits: number): string {
  const units = BigInt(cut.replace(/[-.]/g, '')) + 1n
  const all = String(units).padStart(digits + 1, '0')
  const point = all.length - digits
  return `${cut.startsWith('-') ? '-' : ''}${all.slice(0, point)}${digits > 0 ? `.${all.slice(point)}` : ''}`
}

const exponential = (value: number, digits: number): string =>
  value.toExponential(digits).replace(/e([+-])(\d)$/, 'e$10$2')

function general(value: number, precision: number): string {
  const digits = Math.max(1, precision)
  const power = Number(value.toExponential(digits - 1).split('e')[1])
  const written = power < -4 || power >= digits ? exponential(value, digits - 1) : fixed(value, digits - 1 - power)
  return written.replace(/(\.\d*?)0+(?=e|$)/, '$1').replace(/\.(?=e|$)/, '')
}

function digitsOf(value: unknown, type: string, precision = 6): string {
  if ('dioxXbcu'.includes(type)) {
    const n = typeof value === 'number' && 'diu'.includes(type) ? BigInt(Math.trunc(value)) : value
    if (typeof n !== 'bigint' && typeof n !== 'boolean')
      throw new Error(`%${type} takes a number, not a ${typeName(value)}`)
    const base = { o: 8, x: 16, X: 16, b: 2 }[type] ?? 10
    const written = BigInt(n).toString(base)
    return type === 'X' ? written.toUpperCase() : written
  }
  if (!['bigint', 'number', 'boolean'].includes(typeof value))
    throw new Error(`%${type} takes a number, not a ${typeName(value)}`)
  const x = Number(value)
  if (!Number.isFinite(x)) return /[A-Z]/.test(type) ? floatText(x).toUpperCase() : floatText(x)
  const small = type.toLowerCase()
  const written =
    small === 'f' ? fixed(x, precision) : small === 'e' ? exponential(x, precision) : general(x, precision)
  return type === 'E' || type === 'G' ? written.toUpperCase() : written
}

function padded(body: string, { fill = ' ', align, width = 0 }: Spec, otherwise: string): string {
  checkLength(width)
  const missing = Math.max(0, width - Array.from(body).length)
  const side = align ?? otherwise
  if (side === '<') return body + fill.repeat(missing)
  if (side === '=') {
    const sign = /^[-+ ]?(?:0[xXbo])?/.exec(body)![0]
    return sign + fill.repeat(missing) + body.slice(sign.length)
  }
  const before = side === '^' ? Math.floor(missing / 2) : missing
  return fill.repeat(before) + body + fill.repeat(missing - before)
}

function number(value: unknown, type: string, spec: Spec): string {
  const written =
    type === '%' ? `${fixed(Number(value) * 100, spec.precision ?? 6)}%` : digitsOf(value, type, spec.precision)
  const [sign, digits] = written.startsWith('-')
    ? ['-', written.slice(1)]
    : [spec.sign && spec.sign !== '-' ? spec.sign : '', written]
  const prefix = spec.hash && 'xXbo'.includes(type) ? `0${type}` : ''
  const whole = /^\d+/.exec(digits)?.[0] ?? ''
  const grouped = spec.comma ? whole.replace(/\B(?=(\d{3})+$)/g, spec.comma) + digits.slice(whole.length) : digits
  return sign + prefix + grouped
}

/** format(value, spec) */
function formatted(value: unknown, source: string): string {
  if (source === '') return str(value)
  const match = /^(?:(.)?([<>=^]))?([-+ ])?(#)?(0)?(\d+)?([,_])?(?:\.(\d+))?([a-zA-Z%])?$/su.exec(source)
  if (!match) throw new Error(`the format '${source}' is not supported`)
  const [, fill, align, sign, hash, zero, width, comma, precision, type] = match
  const spec: Spec = {
    ...{ fill: fill ?? (zero ? '0' : ' '), align: align ?? (zero ? '=' : undefined), sign, hash, comma },
    ...{
      width: width === undefined ? 0 : Number(width),
      precision: precision === undefined ? undefined : Number(precision),
    },
  }
  if (typeof value === 'string') {
    if (type !== undefined && type !== 's') throw new Error(`the format '${source}' is for numbers, not for a str`)
    const cut = spec.precision === undefined ? value : Array.from(value).slice(0, spec.precision).join('')
    return padded(cut, { ...spec, align: align ?? '<' }, '<')
  }
  if (!['bigint', 'number', 'boolean'].includes(typeof defined(value)))
    throw new Error(`the format '${source}' does not go with a ${typeName(value)}`)
  if (typeof value === 'number' && type === undefined) {
    const digits = spec.precision === undefined ? floatText(value) : general(value, spec.precision)
    return padded(digits, spec, '>')
  }
  return padded(number(value, type ?? 'd', spec), spec, '>')
}

/** "...".format(...) */
export function formatBraces(
  source: string,
  args: readonly unknown[],
  named: ReadonlyMap<string, unknown>,
  member: (value: unknown, name: string, isItem: boolean) => unknown,
): string {
  let next = 0
  return source.replace(/\{\{|\}\}|\{([^{}!:]*)(?:!([rsa]))?(?::([^{}]*))?\}|[{}]/g, (all, field, conversion, spec) => {
    if (all === '{{' || all === '}}') return all[0]
    if (field === undefined) throw new Error(`a single '${all}' in a format`)
    const [, first, path] = /^([^.[]*)(.*)$/s.exec(field)!
    let value: unknown
    if (first === '' || /^\d+$/.test(first)) {
      const index = first === '' ? next++ : Number(first)
      if (index >= args.length) throw new Error(`the format asks for argument ${index}`)
      value = args[index]
    } else if (named.has(first)) value = named.get(first)
    else throw new Error(`the format asks for '${first}'`)
    for (const [, name, item] of path.matchAll(/\.([^.[]+)|\[([^\]]+)\]/g))
      value = defined(member(value, name ?? item, name === undefined))
    return formatted(conversion === 'r' ? repr(value) : conversion === 's' ? str(value) : value, spec ?? '')
  })
}

/** "..." % values */
export function formatPercent(source: string, values: unknown): string {
  const isTuple = Array.isArray(values) && typeName(values) === 'tuple'
  const all: readonly unknown[] = isTuple ? values : [values]
  let next = 0
  const take = (): unknown => {
    if (next >= all.length) throw new Error('not enough values for the format')
    return all[next++]
  }
  const written = source.replace(
    /%(?:\(([^)]*)\))?([-+ 0#]*)(\*|\d+)?(?:\.(\*|\d+))?([a-zA-Z%])?/g,
    (whole, key: string | undefined, flags: string, width, precision, type: string | undefined) => {
      if (type === '%') return '%'
      if (type === undefined || !'diouxXeEfFgGrs'.includes(type))
        throw new Error(`the format '${whole}' is not supported`)
      const size = (given?: string) =>
        given === '*' ? integer(take()) : given === undefined ? undefined : Number(given)
      const [wide, digits] = [size(width), size(precision)]
      const value = key === undefined ? take() : values instanceof Map ? values.get(text(key)) : undefined
      if (key !== undefined) next = all.length
      if (value === undefined) throw new Error(`the format asks for '${key}'`)
      const spec: Spec = {
        ...{ width: wide, precision: digits, hash: flags.includes('#') ? '#' : undefined },
        sign: flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : undefined,
        align: flags.includes('-') ? '<' : flags.includes('0') && type !== 's' && type !== 'r' ? '=' : '>',
        fill: flags.includes('0') && !flags.includes('-') && type !== 's' && type !== 'r' ? '0' : ' ',
      }
      if (type === 's' || type === 'r') {
        const body = type === 's' ? str(value) : repr(value)
        return padded(digits === undefined ? body : Array.from(body).slice(0, digits).join(''), spec, '>')
      }
      return padded(number(value, type, spec), spec, '>')
    },
  )
  if (next < all.length && !(values instanceof Map)) throw new Error('not all values are used by the format')
  return written
}
