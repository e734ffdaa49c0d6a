// Compares answers in a thread of its own, which can be stopped whatever a model wrote.
//
// Of the library only its reader of LaTeX is used. What it computes has no bound: 9999999! went on until it was stopped, and
// a product over 10^9 terms asked for an array so large that V8 ended the whole process, in spite of the thread's own limit.
//
// messages in: {gold, answer}; out: {equal, reason}
import { ComputeEngine } from '@cortex-js/compute-engine'
import type { MathJson } from './math-json.ts'
import { sameMath, type Verdict } from './same.ts'

const ce = new ComputeEngine()
type Entry = ComputeEngine['latexDictionary'][number]

type Parser = Parameters<Extract<Entry['parse'], (...args: never[]) => unknown>>[0]

/** The next argument of a command. */
const argument = (parser: Parser) => parser.parseGroup() ?? parser.parseToken() ?? 'Nothing'

ce.latexDictionary = [
  ...ce.latexDictionary,
  { latexTrigger: ['\\binom'], parse: (parser: Parser) => ['Binomial', argument(parser), argument(parser)] },
  ...['gcd', 'lcm'].map(
    (name): Entry => ({
      latexTrigger: [`\\${name}`],
      parse: (parser: Parser) => {
        parser.skipSpace()
        return [name.toUpperCase(), ...(parser.parseArguments() ?? ['Nothing'])]
      },
    }),
  ),
]

/** With all digits: `json` makes 0 of what is less than 1e-10. */
const parse = (latex: string) =>
  ce.parse(latex, { canonical: false }).toMathJson({ fractionalDigits: 'max', prettify: false }) as MathJson

/** The library builds its tables when they are first needed. */
for (const first of ['f(x)+5!', 'x(x+1)-\\frac12', '\\sin^{-1}(1)+\\log_3 9', '\\exp{x}+\\sqrt{-1}']) parse(first)

function verdict({ gold, answer }: { readonly gold: string; readonly answer: string }): Verdict {
  try {
    return sameMath(gold, answer, parse)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    return { equal: false, reason: `not equal as written, and not comparable: ${why}` }
  }
}

// No top-level await: bundlers may make a classic script of this file.
if (globalThis.self?.postMessage)
  globalThis.self.addEventListener('message', ({ data }) => globalThis.self.postMessage(verdict(data)))
else
  import('node:worker_threads').then(({ parentPort: port }) =>
    port!.on('message', (message) => port!.postMessage(verdict(message))),
  )
