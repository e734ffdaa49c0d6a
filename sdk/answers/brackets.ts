// Brackets in LaTeX: what stands outside of them, what stands in one pair, how deep they go.

const openers = '([{'
const closers = ')]}'

/** The length of a separator that begins at `i`, or 0. */
export type Separator = (s: string, i: number) => number

export const charAt =
  (char: string): Separator =>
  (s, i) =>
    s[i] === char ? 1 : 0

/** One of these commands, not as the beginning of a longer one. */
export const commandAt =
  (commands: readonly string[]): Separator =>
  (s, i) =>
    s[i] === '\\' ? (commands.find((c) => s.startsWith(c, i) && !/[a-z]/i.test(s[i + c.length] ?? ''))?.length ?? 0) : 0

/**
 * The parts of a text between separators that stand in no bracket, with the separators: [part, separator, part, ...].
 * Half-open intervals: any closing bracket closes any opening one but a brace.
 */
export function splitTop(s: string, separator: Separator): string[] {
  const parts: string[] = []
  let [depth, from, environments] = [0, 0, 0]
  for (let i = 0; i < s.length; i++) {
    if (s.startsWith('\\begin{', i)) environments++
    if (s.startsWith('\\end{', i)) environments--
    const length = depth === 0 && environments === 0 ? separator(s, i) : 0
    if (length > 0) {
      parts.push(s.slice(from, i), s.slice(i, i + length))
      from = i + length
      i = from - 1
    } else if (s[i] === '\\' && !/[a-zA-Z]/.test(s[i + 1] ?? '')) {
      if (s[i + 1] === '{') depth++
      if (s[i + 1] === '}') depth--
      i++
    } else if (openers.includes(s[i])) depth++
    else if (closers.includes(s[i])) depth--
  }
  parts.push(s.slice(from))
  return parts
}

/** The same without the separators, trimmed. */
export const partsBetween = (s: string, separator: Separator): string[] => everySecond(splitTop(s, separator))

export const everySecond = (parts: readonly string[]): string[] =>
  parts.filter((_, i) => i % 2 === 0).map((part) => part.trim())

/** A text that stands in one pair of brackets; `\{` is an opening too. */
export interface Wrapped {
  readonly open: string
  readonly content: string
  readonly close: string
}

/** Null for a text that stands in no pair, or in several. */
export function unwrap(s: string): Wrapped | null {
  const open = /^(?:\\\{|[([{\]])/.exec(s)?.[0]
  const close = /(?:\\\}|[)\]}[])$/.exec(s)?.[0]
  if (!open || !close || s.length < open.length + close.length) return null
  const content = s.slice(open.length, s.length - close.length)
  // ]a, b[ is an interval without its ends.
  const isOpenInterval = open === ']' || close === '['
  const fits = (open === '{') === (close === '}') && (open === '\\{') === (close === '\\}')
  return (isOpenInterval || fits) && isBalanced(content) ? { open, content, close } : null
}

/** Whether every bracket that closes was opened, and the other way round. */
export function isBalanced(s: string): boolean {
  let depth = 0
  for (let i = 0; i < s.length; i++) {
    if (s[i] === '\\') {
      const next = s[i + 1]
      if (next === '{') depth++
      if (next === '}' && --depth < 0) return false
      i++
    } else if (openers.includes(s[i])) depth++
    else if (closers.includes(s[i]) && --depth < 0) return false
  }
  return depth === 0
}

/** How deep its brackets go. */
export function nesting(s: string): number {
  let [depth, most] = [0, 0]
  for (const char of s) {
    if (openers.includes(char)) most = Math.max(most, ++depth)
    else if (closers.includes(char)) depth = Math.max(0, depth - 1)
  }
  return most
}
