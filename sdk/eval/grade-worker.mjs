// Compares answers in a thread of its own, which can be stopped whatever a model wrote. Plain JS: workers have no TypeScript
// loader.
//
// Of the library only its reader of LaTeX is used. What it computes has no bound: 9999999! went on until it was stopped, and
// a product over 10^9 terms asked for an array so large that V8 ended the whole process, in spite of the thread's own limit.
//
// messages in: {gold, answer}; out: {ready} once, then {equal, reason}
import { parentPort } from 'node:worker_threads'
import { ComputeEngine } from '@cortex-js/compute-engine'
import { sameMath } from './math-answer.mjs'

const ce = new ComputeEngine()
const group = (parser) => parser.parseGroup() ?? parser.parseToken()
ce.latexDictionary = [
  ...ce.latexDictionary,
  {
    latexTrigger: ['\\binom'],
    parse: (parser) => ['Binomial', group(parser) ?? 'Nothing', group(parser) ?? 'Nothing'],
  },
  ...['gcd', 'lcm'].map((name) => ({
    latexTrigger: [`\\${name}`],
    parse: (parser) => {
      parser.skipSpace()
      return [name.toUpperCase(), ...(parser.parseArguments() ?? ['Nothing'])]
    },
  })),
]

const parse = (latex) => ce.parse(latex, { canonical: false }).json

/** The library builds its tables when they are first needed. */
for (const first of ['f(x)+5!', 'x(x+1)-\\frac12', '\\sin^{-1}(1)+\\log_3 9', '\\exp{x}+\\sqrt{-1}']) parse(first)
sameMath('\\{1, x\\}', '(1,2] \\cup x \\le 2\\pm 1', parse)

parentPort.on('message', ({ gold, answer }) => {
  try {
    parentPort.postMessage(sameMath(gold, answer, parse))
  } catch (error) {
    const reason = `not equal as written, and not comparable: ${error?.message ?? error}`
    parentPort.postMessage({ equal: false, reason })
  }
})
parentPort.postMessage({ ready: true })
