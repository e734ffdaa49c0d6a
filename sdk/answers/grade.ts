import { HalflingError, OptionError } from '../errors.ts'
import { isNode } from '../runtime.ts'
import { nodeThread, pageThread, type Thread } from '../thread.ts'
import { normalizeAnswer } from './extract.ts'
import { findAnswer, findPhrase, goldOf, isPhrase } from './find-answer.ts'
import type { Verdict } from './same.ts'

/** Whether an answer is the right one. */
export interface Grade {
  readonly equal: boolean
  /** The answer found in the text, as it is written there, or null. */
  readonly extracted: string | null
  /** How that was decided. */
  readonly reason: string
}

/** Of one answer. Longer ones are compared as they are written. */
const mostCharacters = 2000
const loadSeconds = 60
/** Of the thread's values, in Node. */
const megabytes = 192
/** Both sides of the comparer are compiled before time is counted. */
const warmUp = { gold: '\\{1, x\\}', answer: '(1,2] \\cup x \\le 2\\pm 1' }

/**
 * Whether a model's whole text gives the answer of `gold`, which may be a whole solution too. Numbers are compared at once;
 * everything else in a thread with a bound on memory and time, by its mathematical value: fractions, sets, intervals, tuples,
 * matrices, expressions, equations, percentages, units. An answer that takes longer counts as not equal.
 *
 * The first answer that is no number loads the parser (`@cortex-js/compute-engine`): 0.15 s where it was measured, 0.6 ms for
 * each after that.
 *
 * @throws OptionError for a time that is none
 */
export async function grade(gold: string, text: string, options: { timeoutSeconds?: number } = {}): Promise<Grade> {
  const { timeoutSeconds = 5 } = options
  if (!(timeoutSeconds > 0 && timeoutSeconds <= 3600))
    throw new OptionError(`timeoutSeconds: ${timeoutSeconds} is not a time between 0 and 3600 s`)
  const right = goldOf(gold)
  const extracted = isPhrase(right) ? findPhrase(text, right) : findAnswer(text)
  const told = (equal: boolean, reason: string): Grade => ({ equal, extracted, reason })
  if (extracted === null) return told(false, 'no answer in the text')
  if (right === '') return told(false, 'no answer in gold')
  const [a, b] = [plainNumber(right), plainNumber(extracted)]
  if (a && b && (a.unit === b.unit || a.unit === '' || b.unit === '')) {
    const equal = sameNumber(a, b)
    return told(equal, equal ? 'equal numbers' : 'different numbers')
  }
  if (bare(right) === bare(extracted)) return told(true, 'equal as written')
  if (right.length > mostCharacters || extracted.length > mostCharacters)
    return told(false, `not equal as written, and longer than ${mostCharacters} characters`)
  const { equal, reason } = await inTurn(() => compare(right, extracted, timeoutSeconds))
  return told(equal, reason)
}

/** Without spaces, the frame of a formula and the period after it. */
const bare = (answer: string): string =>
  answer.replace(/\\(?:left|right)(?![a-z])|[\s$]|\\[()[\]]|\\[!,;: ]/g, '').replace(/[.,]+$/, '')

interface PlainNumber {
  /** As normalizeAnswer gives it. */
  readonly value: string
  readonly isPercent: boolean
  readonly unit: string
}

const unitWords = /^(?:dollars?|cents?|euros?|percent|pct|[ckm]?m|k?g|meters?|hours?|minutes?|seconds?|days?)$/

/** A number with currency, percent or unit: not a list, where 1,22 could be one. */
function plainNumber(answer: string): PlainNumber | null {
  const match =
    /^[\s$]*([-+−]?)[\s$€£¥\\]*([-+]?\d{1,3}(?:[, ]\d{3}){0,30}(?!\d)(?:\.\d{0,400})?|\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})[\s$€£¥]*(\\?%|[a-z]{1,8})?[\s$.]*$/.exec(
      answer,
    )
  if (!match) return null
  const word = match[3] ?? ''
  const isPercent = /%|^percent$|^pct$/.test(word)
  if (word !== '' && !isPercent && !unitWords.test(word)) return null
  const digits = match[2].replace(/[, ]/g, '')
  return {
    value: normalizeAnswer((match[1] === '' || match[1] === '+' ? '' : '-') + digits),
    isPercent,
    unit: isPercent ? '' : word,
  }
}

function sameNumber(a: PlainNumber, b: PlainNumber): boolean {
  if (a.value === b.value) return true
  if (a.isPercent === b.isPercent) return false
  const [percent, plain] = a.isPercent ? [a, b] : [b, a]
  return hundredth(percent.value) === plain.value
}

/** Of a decimal number, in digits. */
function hundredth(value: string): string {
  const [, sign, whole, fraction = ''] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(value)!
  const padded = whole.padStart(3, '0')
  return normalizeAnswer(`${sign}${padded.slice(0, -2)}.${padded.slice(-2)}${fraction}`)
}

let queue: Promise<unknown> = Promise.resolve()

/** One after the other. */
function inTurn<T>(act: () => Promise<T>): Promise<T> {
  const done = queue.then(act)
  queue = done.catch(() => {})
  return done
}

/** The thread once it has loaded the parser; another after it was stopped. */
let ready: Promise<Thread> | undefined

async function compare(gold: string, answer: string, seconds: number): Promise<Verdict> {
  ready ??= start()
  const thread = await ready.catch((cause) => {
    ready = undefined
    throw new HalflingError('grader', `answers cannot be compared: ${cause.message}`, { cause })
  })
  try {
    return await thread.ask<Verdict>({ gold, answer }, seconds)
  } catch (error) {
    ready = undefined
    await thread.end()
    return { equal: false, reason: `not compared: ${(error as Error).message}` }
  }
}

async function start(): Promise<Thread> {
  const thread = isNode
    ? await nodeThread('./grade-worker', import.meta.url, megabytes)
    : pageThread(new Worker(new URL('./grade-worker.js', import.meta.url), { type: 'module' }))
  try {
    await thread.ask(warmUp, loadSeconds)
    return thread
  } catch (error) {
    await thread.end()
    throw error
  }
}
