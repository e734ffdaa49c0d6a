// Names that a relation may give to its value: x, f(n), a_1, |AB|, \angle ABC, \text{area}, (x, y).

const greek =
  'alpha|beta|gamma|delta|epsilon|varepsilon|theta|lambda|mu|nu|rho|sigma|tau|phi|varphi|psi|omega|Delta|Omega|Phi|ell|xi|eta|kappa'
const symbol = `(?:[a-zA-Z]|\\\\(?:${greek}))(?:_(?:\\{[^{}]*\\}|\\w))?'*`
const segment = `(?:\\|?(?:\\\\(?:angle|triangle|overline|vec|overrightarrow|overarc)(?:\\{[A-Za-z]+\\}|[A-Za-z]+)|[A-Z]{2,})\\|?)`
const name = `(?:${symbol}(?:(?:\\^\\{-1\\})?\\((?:${symbol}|\\d+)(?:,(?:${symbol}|\\d+))*\\))?|m?${segment}|\\|${symbol}\\||\\\\text\\{[^{}]*\\}(?:_\\w+)?|[A-Z][a-z]+)`
const namePattern = new RegExp(`^(?:${name}|\\\\frac\\{${segment}\\}\\{${segment}\\}|${segment}\\/${segment})$`)
const tuplePattern = new RegExp(`^\\(${name}(?:,${name})+\\)$`)
const callPattern = new RegExp(`^(${symbol})\\(`)
const indexPattern = new RegExp(`(\\\\(?:${greek})|(?<![\\\\a-zA-Z])[a-zA-Z])_(?:\\{([^{}]{1,20})\\}|(\\w))`, 'g')

export const isTuple = (text: string): boolean => tuplePattern.test(text)
export const isName = (text: string): boolean => namePattern.test(text) || isTuple(text)

/** |x|, which is a name where a value is given to it and no name where it is compared. */
export const isModulus = (text: string): boolean => new RegExp(`^\\|${symbol}\\|$`).test(text)

/** f(n) and f(x); y and f(x) too. */
export function sameName(a: string, b: string): boolean {
  if (a === b) return true
  const [f, g] = [callPattern.exec(a)?.[1], callPattern.exec(b)?.[1]]
  if (f && g) return f === g
  if (f || g) return (f ? b : a) === 'y' || (f ?? g) === (f ? b : a)
  return /^\\text/.test(a) || /^\\text/.test(b) || plain(a) === plain(b)
}

/** |AB| is the length of AB; |x| is not x. */
const plain = (text: string): string => text.replace(/[{}\s]/g, '').replace(/^\|([A-Z]{2,})\|$/, '$1')

/** x_1 and a_{12} as names of one piece: the parser takes the index for a place in a list. */
export const withoutIndices = (s: string): string =>
  s.replace(
    indexPattern,
    (_, base: string, long?: string, short?: string) =>
      `\\mathrm{${base.replace('\\', '')}S${(long ?? short)!.replace(/\W/g, '')}}`,
  )
