/** How GPT-2 splits text into words, and many since: Python's \s is Unicode's white space. */
export const gpt2Split = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/** For how many lengths a repetition without an end counts. */
const manyTimes = 16

/**
 * In how many ways a regular expression may match a piece of text, about: JavaScript tries them all before it gives up.
 * `(a|ab)x` has 2, `a*b*` 256, `(a+)+` Infinity. The pattern is read as JavaScript reads it; what is no pattern gets some number.
 */
export function waysToMatch(pattern: string): number {
  let at = 0
  const skipClass = () => {
    while (at < pattern.length && pattern[at] !== ']') at += pattern[at] === '\\' ? 2 : 1
    at++
  }
  const repeated = (ways: number): number => {
    const counts = /^(?:[*+?]|\{(\d+)(,(\d*))?\})[?+]?/.exec(pattern.slice(at, at + 30))
    if (!counts) return ways
    at += counts[0].length
    if (counts[0][0] === '?') return ways + 1
    const least = Number(counts[1] ?? 0)
    const most = counts[1] === undefined || counts[3] === '' ? Infinity : Number(counts[3] ?? least)
    // Of a thing that matches in one way only the number of times is open.
    return (ways > 1 ? ways ** most : 1) * Math.min(manyTimes, most - least + 1)
  }
  /** Up to the closing bracket. */
  const branches = (depth: number): number => {
    const all: { first: string; ways: number }[] = []
    let [ways, first] = [1, '']
    const next = () => {
      all.push({ first, ways })
      ;[ways, first] = [1, '']
    }
    while (at < pattern.length && pattern[at] !== ')') {
      const start = at
      const symbol = pattern[at++]
      if (symbol === '|') {
        next()
        continue
      }
      let inner = 1
      if (symbol === '(') {
        at += /^\?(?:[:=!>]|<[=!]|P?<\w+>|[a-z-]+:)?/.exec(pattern.slice(at, at + 60))?.[0].length ?? 0
        inner = depth < 100 ? branches(depth + 1) : Infinity
        at++
      } else if (symbol === '[') skipClass()
      else if (symbol === '\\') at++
      const end = at
      ways *= repeated(inner)
      // A letter that may be left out is no beginning.
      const isLetter = end === start + 1 && at === end && /[\w' _-]/.test(symbol)
      if (first === '') first = isLetter ? symbol.toLowerCase() : 'any'
    }
    next()
    // Of branches that begin with different letters one at most goes on.
    const differ =
      all.every(({ first }) => first !== 'any') && new Set(all.map(({ first }) => first)).size === all.length
    return differ ? Math.max(...all.map(({ ways }) => ways)) : all.reduce((sum, { ways }) => sum + ways, 0)
  }
  const ways = branches(0)
  return at < pattern.length ? Infinity : ways
}
