/**
 * The final answer of a text (to the first question that it answers), normalized: the last <answer>...</answer>, else the last \boxed{...}, else the last
 * `#### n`, else the last "The answer is n"; null without any.
 */
export function extractAnswer(text: string): string | null {
  for (const part of questions(text))
    for (const read of [tagged, boxed, hashed, spoken]) {
      const found = read(part)
      if (found === null) continue
      const answer = normalizeAnswer(boxed(found) ?? found)
      if (answer !== '') return answer
    }
  return null
}

const nextQuestion =
  /\n[ \t*#>]*(?:(?:Next|New|Another) )?(?:Question|Problem|Exercise|Instruction|Human|User|Q)(?: ?#?\d+)?[ *]*:/
const mostQuestions = 100

/** A text up to where a model that does not stop asks itself the next question, and from there; what it thinks is not cut. */
export function questions(text: string): string[] {
  const thought = Math.max(0, text.indexOf('</think>'))
  const [first, ...more] = text.slice(thought).split(nextQuestion, mostQuestions)
  return [text.slice(0, thought) + first, ...more]
}

/** The answer of a row: what `extractAnswer` finds in it, else all of it. */
export const goldAnswer = (right: string): string => extractAnswer(right) ?? right.trim()

/** Equal after normalization; numbers by value: 1,000 = 1000 = 1000.0. */
export function sameAnswer(a: string, b: string): boolean {
  return normalizeAnswer(a) === normalizeAnswer(b)
}

const number = /^([-+]?)(\d+|\d{1,3}(?:,\d{3})+)?(?:\.(\d*))?$/

/** Without surrounding spaces, dollar signs, closing periods and commas; numbers in their shortest form. */
export function normalizeAnswer(answer: string): string {
  const bare = answer.replace(/^(?:\s|\\?\$)+|[\s$.,]+$/g, '').replace(/^([-+])\\?\$/, '$1')
  const match = number.exec(bare)
  if (!match || (match[2] === undefined && !match[3])) return bare
  const whole = (match[2] ?? '').replaceAll(',', '').replace(/^0+/, '') || '0'
  const fraction = (match[3] ?? '').replace(/0+$/, '')
  const value = fraction === '' ? whole : `${whole}.${fraction}`
  return match[1] === '-' && value !== '0' ? `-${value}` : value
}

const lastMatch = (text: string, pattern: RegExp): string | null => [...text.matchAll(pattern)].at(-1)?.[1] ?? null

export const tagged = (text: string): string | null => lastMatch(text, /<answer>((?:(?!<answer>)[\s\S])*?)<\/answer>/g)

/** The last \boxed{...} whose braces are balanced. */
const boxed = (text: string): string | null => boxes(text).at(-1)?.content ?? null

/** Every \boxed{...} whose braces are balanced, in the order in which they begin; of nested ones the innermost. One pass. */
export function boxes(text: string): { readonly start: number; readonly end: number; readonly content: string }[] {
  const opening = '\\boxed{'
  // Where a box began, or null for another brace.
  const open: (number | null)[] = []
  const found: { start: number; end: number; content: string }[] = []
  let inner = -1
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '\\') {
      if (text.startsWith(opening, i)) {
        open.push(i)
        i += opening.length - 1
      } else if (!text.startsWith(opening, i + 1)) i++
    } else if (text[i] === '{') open.push(null)
    else if (text[i] === '}') {
      const start = open.pop() ?? null
      if (start === null || start < inner) continue
      inner = start
      found.push({ start, end: i + 1, content: text.slice(start + opening.length, i) })
    }
  }
  return found
}

export const hashed = (text: string): string | null => lastMatch(text, /####[ \t]*([^\n]+)/g)

/** Up to the end of the sentence or line: a period between digits does not end it. */
const spoken = (text: string) => lastMatch(text, /the answer is:?[ \t]*((?:[^.\n]|\.(?=\d))+)/gi)
