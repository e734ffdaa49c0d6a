/** What a value is counted in. */
export interface Unit {
  /** Of what kind, with the power: length2. */
  readonly kind: string
  /** What one is worth in the kind's own unit. */
  readonly factor: number
}

const kinds = {
  length: {
    mm: 0.001,
    cm: 0.01,
    dm: 0.1,
    m: 1,
    meter: 1,
    metre: 1,
    centimeter: 0.01,
    millimeter: 0.001,
    km: 1000,
    kilometer: 1000,
  },
  imperial: { inch: 1, in: 1, inches: 1, foot: 12, feet: 12, ft: 12, yard: 36, yd: 36, mile: 63360, mi: 63360 },
  mass: { mg: 0.001, g: 1, gram: 1, kg: 1000, kilogram: 1000 },
  time: { s: 1, sec: 1, second: 1, min: 60, minute: 60, h: 3600, hr: 3600, hour: 3600, day: 86400, week: 604800 },
  volume: { ml: 0.001, milliliter: 0.001, l: 1, liter: 1, litre: 1 },
  weight: { ounce: 1, oz: 1, pound: 16, lb: 16 },
  money: { dollar: 1, cent: 0.01 },
}
const units = new Map<string, Unit>(
  Object.entries(kinds).flatMap(([kind, all]) =>
    Object.entries(all).map(([unit, factor]) => [unit, { kind, factor }] as const),
  ),
)

/** Of "square centimeters" or "cm^2"; null for other words. */
export function unitOf(words: string): Unit | null {
  const text = words.toLowerCase().replace(/[.{}]/g, '').trim()
  const match = /^(square|cubic|sq)? ?([a-z]+?)(?:\^?([23]))?$/.exec(text)
  if (!match) return null
  const unit = units.get(match[2]) ?? units.get(match[2].replace(/s$/, ''))
  if (!unit) return null
  const power = match[1] === 'cubic' ? 3 : match[1] ? 2 : Number(match[3] ?? 1)
  return { kind: `${unit.kind}${power}`, factor: unit.factor ** power }
}

const number = '\\d+(?:\\.\\d+)?'
const counted = `(${number}) ?(?:\\\\text\\{ ?)?([a-z]+)\\.? ?\\}?`
const between = '(?:\\s|,|\\\\|and\\b|\\\\text\\{ ?and ?\\})*'
const compoundPattern = new RegExp(`^${counted}${between}${counted}(?:${between}${counted})?$`)

/** 6 feet 2 inches as one value: (6 \cdot 12+2)\text{inches}; every other text as it is. */
export function compound(s: string): string {
  if (s.length > 100) return s
  const parts = compoundPattern.exec(s.trim())?.slice(1).filter(Boolean) ?? []
  const values = parts.filter((_, i) => i % 2 === 0)
  const all = parts.flatMap((words, i) => (i % 2 === 1 ? [unitOf(words)] : []))
  const last = all.at(-1)
  const isFalling = all.every(
    (unit, i) => unit && last && unit.kind === last.kind && unit.factor < (all[i - 1]?.factor ?? Infinity),
  )
  if (!last || !isFalling) return s
  const sum = values.map((value, i) => `${value} \\cdot ${Math.round(all[i]!.factor / last.factor)}`)
  return `(${sum.join('+')})\\text{${parts.at(-1)}}`
}

/** The value of `5 apples`, `5cm^2` or `5\text{ cm}`, and the words behind it; null without any. Not of 6abc. */
export function splitUnit(s: string): { readonly value: string; readonly words: string } | null {
  const match = /^(.*\S)\s*\\text\{([^{}]*)\}((?:\^\{?\d\}?)?)$/.exec(s) ?? plainUnit(s)
  return match && { value: match[1].trim(), words: match[2] + match[3] }
}

function plainUnit(s: string): RegExpExecArray | null {
  const match = /^([-+\d.,\s]*\d\s*|.*\}\s*)(?<![a-zA-Z\\])([a-z]+(?: [a-z]+)*)((?:\^\{?[23]\}?)?)$/.exec(s)
  if (!match) return null
  const [, value, words, power] = match
  const isWord = /^(?:[a-z]{4,}|[b-df-hj-np-tv-z][aeiouy][a-z])(?: [a-z]+)*$/.test(words) && /[aeiou]/.test(words)
  const isUnit = unitOf(words + power) !== null && (words.length > 1 || /\d$/.test(value.trim()))
  return (isWord && /\s$/.test(value)) || (isUnit && words !== 's' && words !== 'h') ? match : null
}
