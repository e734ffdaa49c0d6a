import { compound } from './units.ts'

// Spellings of mathematics brought to one LaTeX, as text: what the parser does not know, and what people write without it.

const unicode = new Map(
  Object.entries({
    '−': '-',
    '–': '-',
    '×': '\\times ',
    '·': '\\cdot ',
    '⋅': '\\cdot ',
    '÷': '/',
    '∗': '\\cdot ',
    π: '\\pi ',
    '∞': '\\infty ',
    '≤': '\\le ',
    '⩽': '\\le ',
    '≥': '\\ge ',
    '⩾': '\\ge ',
    '≠': '\\ne ',
    '≈': '\\approx ',
    '∈': '\\in ',
    '∪': '\\cup ',
    '∩': '\\cap ',
    '∅': '\\emptyset ',
    ℝ: '\\mathbb{R}',
    '±': '\\pm ',
    '°': '^\\circ ',
    '²': '^{2}',
    '³': '^{3}',
    '½': '\\frac{1}{2}',
    '¼': '\\frac{1}{4}',
    '¾': '\\frac{3}{4}',
    '⅓': '\\frac{1}{3}',
    '⅔': '\\frac{2}{3}',
    θ: '\\theta ',
    α: '\\alpha ',
    β: '\\beta ',
    λ: '\\lambda ',
    '√': '\\sqrt',
    '“': '',
    '”': '',
    '"': '',
    '€': '',
    '£': '',
    '¥': '',
    '\u2061': '',
  }),
)

/** Commands that are written with two backslashes where a text was escaped twice: not a row's end, as one would begin with them. */
const twice =
  /(?<!\\)\\\\(?=(?:[dt]?frac|sqrt|left|right|leq?|geq?|neq?|text|mathrm|pi|cup|cap|in|infty|cdot|times|pm|boxed|begin|end|quad|alpha|beta|theta|pmod|circ)(?![a-z]))/g

const functions = 'sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln|exp|gcd|lcm'

/** Signs of a text that is no LaTeX. */
const typed = new RegExp(
  `(?<![\\\\a-zA-Z])(?:sqrt|pi|infty|infinity|inf|${functions})(?![a-zA-Z])|\\*|\\^\\(|\\^-?\\d{2}|\\^-`,
)

/** Letters and digits of other widths and fonts, and digits of other scripts, as ASCII. */
export const ascii = (text: string): string =>
  text
    .replace(/[\uff01-\uff5e\u{1d400}-\u{1d7ff}]/gu, (char) => char.normalize('NFKC'))
    .replace(/[\u0660-\u0669\u06f0-\u06f9\u0966-\u096f]/g, (char) =>
      String((char.charCodeAt(0) - (char < '\u0900' ? 0 : 6)) % 16),
    )

/** Colours, underlines, sizes, ticks, HTML: what only dresses an answer. */
const undressed = (answer: string): string =>
  answer
    .replace(/\\(?:textcolor|colorbox) ?(?:\[\w+\])? ?\{[^{}]*\}(?= ?\{)|\\color ?(?:\[\w+\])? ?\{[^{}]*\}/g, '')
    .replace(/\\(?:underline|uline|underbar|boldsymbol|bm|pmb|emph|ensuremath|hl|mathop)(?![a-zA-Z])/g, '')
    .replace(/\\(?:tiny|scriptsize|small|normalsize|large|Large|LARGE|huge|Huge|bfseries)(?![a-zA-Z])/g, '')
    .replace(/\\math(?:bf|it|sf|normal)(?=\{[^{}]*[-+*/^=\\\d])/g, '')
    .replace(/\\(?:mathrm|text(?:bf|rm|it)?)(?=\{[^{}a-zA-Z]*(?:\d|\\(?!text|math|mbox)))/g, '')
    .replace(/\\(?:checkmark|blacksquare|qed)(?![a-zA-Z])|\ufe0f|[✓✔✅☑∎■]/g, '')
    .replace(/<\/?(?:b|i|u|em|strong|span|div|p|code|mark)(?: [^<>]*)?>(?=.*<\/|$)/g, '')
    .replace(/^\s*(?:\*\*|`)|(?:\*\*|`)[\s.]*$/g, '')

/** Spaces, sizes, fonts, fractions, relations, thousands: each in one spelling. Without the frame: $, \boxed. */
export function clean(answer: string): string {
  let s = undressed(ascii(answer)).replace(
    /[^\x20-\x7e]/g,
    (char) => unicode.get(char) ?? (/\s/.test(char) ? ' ' : char),
  )
  s = s.replace(twice, '\\')
  s = s
    .replace(/"/g, '')
    .replace(/\\pounds|\\euro|\\?\$|(?<!\\)\\[()[\]]/g, '')
    .replace(/(\d)(?:,\\!|\{,\}) ?(?=\d{3})/g, '$1')
    .replace(
      /\\(?:displaystyle|textstyle|limits|nolimits|left(?![a-z])|right(?![a-z])|[bB]igg?[lr]?(?![a-z])|middle(?![a-z]))/g,
      '',
    )
    .replace(/(\\(?:mathrm|text)\{ ?[a-zA-Z ]+)\^\{?(\d)\}?\}/g, '$1}^$2')
    .replace(/\\q?quad|(?<!\\)\\[,;:! ]|~|\\hspace\{[^{}]*\}|\\phantom\{[^{}]*\}/g, ' ')
    .replace(/\\[dtc]frac/g, '\\frac')
    .replace(/\\dbinom|\\tbinom/g, '\\binom')
    .replace(/\\(?:boxed|fbox|displaylines)\b/g, '')
    .replace(/\\(?:leqslant|leqq|leq)(?![a-z])/g, '\\le ')
    .replace(/\\(?:geqslant|geqq|geq)(?![a-z])/g, '\\ge ')
    .replace(/\\(?:neq|not ?=)(?![a-z])/g, '\\ne ')
    .replace(/\\lt(?![a-z])/g, '<')
    .replace(/\\gt(?![a-z])/g, '>')
    .replace(/<=/g, '\\le ')
    .replace(/>=/g, '\\ge ')
    .replace(/(?<![\d)])!=|=\/=/g, '\\ne ')
    .replace(/\\(?:approx|simeq|thickapprox)(?![a-z])/g, '\\approx ')
    .replace(/\\(?:varnothing)(?![a-z])/g, '\\emptyset ')
    .replace(/\\(?:lbrace)(?![a-z])/g, '\\{')
    .replace(/\\(?:rbrace)(?![a-z])/g, '\\}')
    .replace(/\\(?:[lr]?vert|mid)(?![a-z])/g, '|')
    .replace(/\\(?:langle|lparen)(?![a-z])/g, '(')
    .replace(/\\(?:rangle|rparen)(?![a-z])/g, ')')
    .replace(/\\mathbb ?\{?([A-Z])\}?/g, '\\mathbb{$1}')
    .replace(/\\(?:lbrack)(?![a-z])/g, '[')
    .replace(/\\(?:rbrack)(?![a-z])/g, ']')
    .replace(/\\degree(?![a-z])|\\text\{ ?degrees?\}|(?<=\d) ?degrees?\b/g, '^\\circ ')
    .replace(/\^ ?\{ ?\\circ ?\}/g, '^\\circ ')
    .replace(/\\%|%|(?<![a-zA-Z])(?:percent|pct)\b|\\text\{ ?(?:percent|pct) ?\}/g, '\\%')
    .replace(/\\(?:ldots|cdots|dots)(?![a-z])/g, '…')
    .replace(/\\operatorname\*?\{([a-z]+)\}/g, '\\$1 ')
    .replace(/\\(?:sqrt|frac) (?=[{\d\\[])/g, (match) => match.trim())
  s = connectors(compound(s.replace(/(\d+) out of (\d+)/g, '\\frac{$1}{$2}')))
  s = s
    .replace(ordinal, cardinal)
    .replace(named, (_, inText, rest, bare) => `\\cdot ${powers.get(inText ?? bare)}${rest ? `\\text{${rest}}` : ''}`)
  s = thousands(s.replace(/ +/g, ' ').trim())
  if (typed.test(s)) s = plain(s)
  s = s.replace(/(\d*)\.(\d*)\\overline\{(\d{1,40})\}/g, repeating)
  s = s.replace(/(?<![\d.}\\a-zA-Z]\s?)(\d+) (\d+) ?\/ ?(\d+)(?![\d.])/g, '$1\\frac{$2}{$3}')
  s = s.replace(/(?<![\d.,}^_])(\d+) ?\/ ?(\d+)(?![\d.!^])/g, '\\frac{$1}{$2}')
  return s.replace(/^[\s.,;:]+|[\s.,;:]+$/g, '')
}

/** 3rd, 21^{st} */
const ordinal = /(\d+)(?:\^?\\text\{ ?(\w\w) ?\}|\^\{ ?(?:\\text\{(\w\w)\}|(st|nd|rd|th)) ?\}|(st|nd|rd|th))(?![a-z])/g

function cardinal(written: string, digits: string, ...endings: string[]): string {
  const teen = /1[123]$/.test(digits)
  const right = teen ? 'th' : (['th', 'st', 'nd', 'rd'][Number(digits.at(-1))] ?? 'th')
  return endings.slice(0, 4).includes(right) ? digits : written
}

/** 2 million, 2\text{ million dollars} */
const named =
  /(?<=\d) ?(?:\\text\{ ?(hundred|thousand|million|billion|trillion)\b *([^{}]*)\}|(hundred|thousand|million|billion|trillion)(?![a-z]))/g
const powers = new Map([
  ['hundred', '10^{2}'],
  ['thousand', '10^{3}'],
  ['million', '10^{6}'],
  ['billion', '10^{9}'],
  ['trillion', '10^{12}'],
])

/** Words between answers become commas, text in fonts its letters. */
function connectors(s: string): string {
  return s
    .replace(
      /\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf|mathit|mathsf|rm|bf)\{([^{}]*)\}/g,
      (_, words: string) =>
        /^[ ,]*(?:and|or)[ ,]*$/.test(words) ? ', ' : words.trim() === '' ? ' ' : `\\text{${words.trim()}}`,
    )
    .replace(/(?<![a-zA-Z\\])(?:and|or)(?![a-z])|(?<=[)\d])(?:and|or)(?=[(\dA-Zxyz])/g, ', ')
    .replace(/(?:, *){2,}/g, ', ')
}

/** 1 000 and, where it is all of the answer, 1,000. */
function thousands(s: string): string {
  const joined = s.replace(/(?<![\d.,])\d{1,3}(?: \d{3}){1,9}(?![\d])(?!\/)/g, (digits) => digits.replaceAll(' ', ''))
  return /^[-+]?\d{1,3}(?:,\d{3})+(?:\.\d*)?(?!\d)(?!,)[^(){}[\]]*$/.test(joined)
    ? joined.replace(/^[-+]?[\d,]+/, (digits) => digits.replaceAll(',', ''))
    : joined
}

/** As it is typed without LaTeX: sqrt(2), 2*x, x^10, x^(a+1). */
function plain(s: string): string {
  return brackets(
    s
      .replace(/(?<![\\a-zA-Z])(?:infinity|infty|inf)(?![a-zA-Z])/g, '\\infty ')
      .replace(/(?<![\\a-zA-Z])pi(?![a-zA-Z])/g, '\\pi ')
      .replace(/(?<![\\a-zA-Z])sqrt(?![a-zA-Z])/g, '\\sqrt')
      .replace(new RegExp(`(?<![\\\\a-zA-Z])(${functions})(?![a-zA-Z])`, 'g'), '\\$1 ')
      .replace(/\*\*/g, '^')
      .replace(/\*/g, '\\cdot ')
      .replace(/\^(-?\d{2,}|-\d)/g, '^{$1}'),
  )
}

/** What stands in round brackets behind \sqrt or ^ is all of it. */
function brackets(s: string): string {
  let out = ''
  for (let i = 0; i < s.length; i++) {
    const opener = s.startsWith('\\sqrt(', i) ? '\\sqrt(' : s.startsWith('^(', i) ? '^(' : null
    const end = opener ? closing(s, i + opener.length - 1) : -1
    if (!opener || end < 0) {
      out += s[i]
      continue
    }
    out += `${opener.slice(0, -1)}{${brackets(s.slice(i + opener.length, end))}}`
    i = end
  }
  return out
}

/** Where the bracket closes that opens at `at`, or -1. */
function closing(s: string, at: number): number {
  let depth = 0
  for (let i = at; i < s.length; i++) {
    if (s[i] === '(') depth++
    else if (s[i] === ')' && --depth === 0) return i
  }
  return -1
}

/** 0.1\overline{6} is a fraction. */
function repeating(_: string, whole: string, fixed: string, period: string): string {
  const [a, b] = [BigInt((whole + fixed + period).padStart(1, '0')), BigInt((whole + fixed).padStart(1, '0'))]
  return `\\frac{${a - b}}{${'9'.repeat(period.length)}${'0'.repeat(fixed.length)}}`
}
