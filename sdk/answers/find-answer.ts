import { partsBetween } from './brackets.ts'
import { boxes, hashed, questions, tagged } from './extract.ts'
import { ascii } from './latex.ts'
import { compound } from './units.ts'

/** What is read of a longer text: its end. Final answers stand there. */
const mostCharacters = 20_000

/**
 * The final answer of a whole text as it is written there: the last <answer>, else the last \boxed{} (several joined by commas,
 * "and" or "or" are a list) or a later "Final answer: ...", else `#### n`, else "the answer is ...", else the last of LaTeX
 * environments and numbers. A text that is nothing but an answer is taken whole. Of a text that goes on to other questions the
 * first that is answered. Null without any.
 */
export const findAnswer = (text: string): string | null =>
  firstOf(text, [inTags, inBoxes, hashed, announced, unclosedBox], [whole, last], [lastWords])

/** What the first of the readers finds, by ranks; a higher rank in a later question goes before a lower one. */
function firstOf(text: string, ...ranks: readonly (readonly ((text: string) => string | null)[])[]): string | null {
  const parts = questions(ascii(text)).map((part) =>
    part
      .slice(-mostCharacters)
      .replace(/[^\S\n]+/g, ' ')
      .trim(),
  )
  for (const readers of ranks)
    for (const part of parts)
      for (const read of readers) {
        const answer = read(part)?.replace(/^[\s*]+|[\s*]+$/g, '')
        if (answer) return answer
      }
  return null
}

/** The right answer that a row gives: of a solution its final answer; a short phrase with numbers, "March 9", is one as a whole. */
export function goldOf(right: string): string {
  const plain = right.trim()
  return isPhrase(plain) ? plain : (findAnswer(right) ?? plain)
}

const sentenceWords =
  /\b(?:is|are|was|were|has|have|had|be|gets?|equals?|makes?|answer|so|thus|therefore|[wst]?he|they|it|we)\b/i

/** Words around numbers that say nothing as a sentence. */
export function isPhrase(written: string): boolean {
  const text = withoutFonts(written)
  const isWhole = text !== '' && text.length <= 60 && !/[\\$=<>#\n]|[.!?]\s/.test(text) && !sentenceWords.test(text)
  return isWhole && /\d/.test(text) && /[a-z]{2}/i.test(text) && (isCompound(text) || !isAnswer(text))
}

const isCompound = (text: string): boolean => compound(text) !== text

/** The phrase where a text gives it as its answer, else what the text gives. */
export function findPhrase(text: string, phrase: string): string | null {
  const said = phrase.toLowerCase()
  const within = (sentence: string | null) => {
    const small = sentence?.toLowerCase().replace(/^[\s*]+/, '') ?? ''
    return small.startsWith(said) && /^(?:$|[\s*]*[.,;:!(])/.test(small.slice(said.length)) ? phrase : null
  }
  const sentence = (part: string) => within(afterLast(part, finalAnswer)) ?? within(afterLast(part, answerIs))
  const ending = (part: string) => {
    const small = part.toLowerCase().replace(/[\s.!*]+$/, '')
    return small.endsWith(said) && !/\w$/.test(small.slice(0, -said.length)) ? phrase : null
  }
  return firstOf(text, [inTags, inBoxes, hashed, sentence, announced, unclosedBox], [ending, whole, last], [lastWords])
}

const inTags = (text: string): string | null => {
  const content = tagged(text)
  return content === null ? null : (joinedBoxes(content)?.answer ?? content)
}

function inBoxes(text: string): string | null {
  const box = joinedBoxes(text)
  if (!box) return statedAnswer(text, 0)
  return statedAnswer(text, box.end) ?? box.answer
}

const finalAnswer = /\bfinal answer(?: is)?\b[ :*]*/gi
const answerIs = /\banswer(?: is|:)[ :*]*/gi

/** Behind the last "final answer" after `from`. */
const statedAnswer = (text: string, from: number): string | null => behind(text.slice(from), finalAnswer)

const announced = (text: string): string | null => behind(text, answerIs)

function afterLast(text: string, announcement: RegExp): string | null {
  const at = [...text.matchAll(announcement)].at(-1)
  return at ? text.slice(at.index + at[0].length).trimStart() : null
}

/** What a sentence says after its announcement: a formula, all of it when it is short mathematics, else its first number. */
function behind(text: string, announcement: RegExp): string | null {
  const rest = afterLast(text, announcement)
  if (rest === null) return null
  const line = rest.startsWith('\\[') || rest.startsWith('$$') ? rest : rest.replace(/\n[\s\S]*/, '')
  const formulas = mathParts(line)
  const sentence = line.slice(0, sentenceEnd(line))
  if (formulas.length > 0 && formulas[0].start < Math.max(sentence.length, 1)) {
    let answer = formulas[0].content
    for (let i = 1; i < formulas.length && joins(line.slice(formulas[i - 1].end, formulas[i].start)); i++)
      answer += `, ${formulas[i].content}`
    return answer
  }
  if (isAnswer(sentence)) return sentence
  return numbers(sentence)[0]?.content ?? sentence
}

/** A period between digits does not end a sentence. */
const sentenceEnd = (text: string): number => {
  const at = text.search(/[.!?](?=\s|$)|\*\*|</)
  return at < 0 ? text.length : at
}

const whole = (text: string): string | null => (isAnswer(text) ? lastSide(text) : null)

function last(text: string): string | null {
  const formulas = mathParts(text)
  const formula = formulas.at(-1)
  const number = numbers(text).at(-1)
  if (!formula) return number?.content ?? null
  if (number && number.start >= formula.end && !isUnit(text.slice(formula.end))) return number.content
  let answer = lastSide(formula.content)
  for (let i = formulas.length - 2; i >= 0 && joins(text.slice(formulas[i].end, formulas[i + 1].start)); i--)
    answer = `${formulas[i].content}, ${answer}`
  const unit = /^ ?(%|\\%|percent\b|pct\b)/.exec(text.slice(formula.end))
  return unit ? `${answer}%` : answer
}

/** Of a calculation x = 2 + 3 = 5, which nothing marks as the answer, what it comes to. */
function lastSide(formula: string): string {
  const sides = partsBetween(formula.replace(/^[$\s]+|[$\s.]+$/g, ''), (s, i) => ('=,;'.includes(s[i]) ? 1 : 0))
  const end = sides.at(-1)!
  const isNumber = /\d/.test(end) && !/[a-z]/i.test(end.replace(/\\[a-z]+/gi, ''))
  return sides.length > 2 && isNumber && !/[,;<>≤≥≈≠]|and|or|\\(?:le|ge|lt|gt|ne|in|approx|equiv|cup|pm)/.test(formula)
    ? end
    : formula
}

const isUnit = (text: string): boolean => /^ ?(?:[a-z]{1,3}|\\text\{[a-z ]+\})?\^?\{?[23²³]\}?\.?$/.test(text)

/** A text that is cut off before its box ends. */
function unclosedBox(text: string): string | null {
  const at = text.lastIndexOf('\\boxed{')
  return at < 0 ? null : text.slice(at + '\\boxed{'.length)
}

/** A short text without a number may be the answer itself: "Tuesday". */
const lastWords = (text: string): string | null => (text.length <= 40 && /\p{L}/u.test(text) ? text : null)

/** The last box, with those before it that belong to one list. */
function joinedBoxes(text: string): { readonly answer: string; readonly end: number } | null {
  const all = boxes(text)
  const box = all.at(-1)
  if (!box) return null
  let answer = box.content
  for (let i = all.length - 2; i >= 0 && joins(text.slice(all[i].end, all[i + 1].start)); i--)
    answer = `${all[i].content}, ${answer}`
  const unit = /^(?: |\$|\\\)|\\\])*(%|\\%|percent\b|pct\b)/.exec(text.slice(box.end, box.end + 20))
  return { answer: unit ? `${answer}%` : answer, end: box.end }
}

/** Only a comma, "and" or "or" between two formulas, maybe after "for part (a)" and before the name of the next. */
function joins(gap: string): boolean {
  if (gap.length > 80) return false
  const bare = gap
    .replace(/\\(?:text|mbox|mathrm)\{([^{}]*)\}/g, ' $1 ')
    .replace(/\\[()[\]]|\$|\\q?quad|\\[ ,;!:]|[{}&]/g, ' ')
    .replace(/(?:[A-Za-z](?:_?\w|_ \w+ |\([a-z]\))?) *= *$/, '')
    .trim()
  return bare === '' || /^(?:[^.?!\n]{0,40}\b)?(?:and|or)$|^(?:for [^.?!\n]{1,30})?[,;]$|^[,;] ?(?:and|or)$/.test(bare)
}

interface Part {
  readonly start: number
  readonly end: number
  readonly content: string
}

const closers: readonly [string, string][] = [
  ['\\[', '\\]'],
  ['\\(', '\\)'],
  ['$$', '$$'],
  ['$', '$'],
]

/** The formulas of a text, in order. A dollar sign that stands for money opens none. */
function mathParts(text: string): Part[] {
  const parts: Part[] = []
  // Where no closer is found once there is none further on.
  const missing = new Set<string>()
  for (let i = 0; i < text.length; ) {
    const char = text[i]
    const pair = char === '$' || char === '\\' ? closers.find(([opener]) => text.startsWith(opener, i)) : undefined
    if (!pair || missing.has(pair[1])) {
      i += char === '\\' ? 2 : 1
      continue
    }
    const [opener, closer] = pair
    const from = i + opener.length
    const at = indexOfUnescaped(text, closer, from)
    if (at < 0) missing.add(closer)
    const content = text.slice(from, at)
    const isMoney = opener === '$' && /\d/.test(text[from] ?? '') && /\d/.test(text[at + 1] ?? '')
    if (at < 0 || isMoney || (opener === '$' && /\n/.test(content))) i = from
    else {
      const end = at + closer.length
      if (content.trim() !== '') parts.push({ start: i, end, content })
      i = end
    }
  }
  return parts
}

function indexOfUnescaped(text: string, closer: string, from: number): number {
  let at = text.indexOf(closer, from)
  while (at > 0 && text[at - 1] === '\\' && text[at - 2] !== '\\') at = text.indexOf(closer, at + 1)
  return at
}

/** Not within a word; a sign belongs to a number that does not follow another. */
const numberPattern =
  /(?<![\w.,\\^_{])(?:(?<!(?:[\d)]|\b[a-zA-Z]) ?)[-−+])?\$?(?:\d{1,3}(?:,\d{3}){1,9}(?!\d)|\d{1,3}(?: \d{3}){1,9}(?![\d,])|\d{1,400})?(?:(?<=\d)[.]\d{1,400}|(?<!\d)[.]\d{1,400}|(?<=\d))(?:[/]\d{1,400})?(?: ?(?:%|\\%|percent\b|pct\b| (?:hundred|thousand|million|billion|trillion)\b))?/g

function numbers(text: string): Part[] {
  const found: Part[] = []
  for (const { 0: content, index } of text.matchAll(numberPattern))
    if (/\d/.test(content)) found.push({ start: index, end: index + content.length, content })
  return found
}

const mathWords = new Set(
  'and or if sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp sqrt pi inf infinity pct percent mod max min abs gcd lcm'.split(
    ' ',
  ),
)
const shortWords = new Set('is it we to of in no so be he by as at an do my the'.split(' '))

/** Letters side by side that are factors or points rather than a word. */
const letters = /^(?:[A-Z]{3}|[abcd]{3}|[xyz]{3}|[^aeiouyAEIOUY]{3})$/

const withoutFonts = (written: string): string =>
  written
    .replace(/ ?\\(?:text|mbox|textbf|mathrm)\{([^{}]*)\}/g, ' $1')
    .replace(/ +/g, ' ')
    .trim()

/** Short, and of its words at most one is none of mathematics, behind a number: "15 apples". */
export function isAnswer(written: string): boolean {
  const text = withoutFonts(written)
  if (isCompound(text)) return true
  if (/^\$?\\text\{[^{}]*\}\$?$/.test(written.trim())) return true
  if (text.length === 0 || text.length > 300 || text.includes('\n\n')) return false
  if (mathParts(text).length > 1 || /\S\s*\$\S.*\S\$/.test(text)) return joinedFormulas(text)
  const odd = oddWords(text)
  if (odd.length === 0) return /[\w\d]/.test(text)
  return odd.length <= 2 && /^[-+$€£ ]*[\d.,/]+ ?(?:[a-zA-Z]+ ){0,1}[a-zA-Z]+(?:\^?[23²³])?\.?$/.test(text)
}

/** Words that are none of mathematics. */
export function oddWords(text: string): string[] {
  const words =
    text
      .replace(/\\(?:begin|end)\{\w+\*?\}|\\[a-zA-Z]+|(?<=[\d)])(?:and|or)(?=[A-Z(\d])/g, ' ')
      .match(
        /[a-zA-Z]{2,}|[\p{Script=Han}\p{Script=Kana}\p{Script=Hira}\p{Script=Hang}\p{Script=Cyrl}\p{Script=Arab}\p{Script=Deva}]+/gu,
      ) ?? []
  return words.filter((word) => {
    const small = word.toLowerCase()
    if (mathWords.has(small)) return false
    if (!/[a-z]/.test(small)) return true
    return word.length > 2 ? !letters.test(word) : shortWords.has(small)
  })
}

/** Nothing but formulas in a list: "$1$ and $2$". */
function joinedFormulas(text: string): boolean {
  const parts = mathParts(text)
  if (parts.length < 2 || parts[0].start > 0) return false
  for (let i = 1; i < parts.length; i++) if (!joins(text.slice(parts[i - 1].end, parts[i].start))) return false
  return /^[.\s]*$/.test(text.slice(parts.at(-1)!.end))
}
