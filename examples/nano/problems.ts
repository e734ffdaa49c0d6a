// Arithmetic word problems with worked steps, without end: the same seed and index give the same problem on every machine.

import { randomBits } from '../../sdk/random.ts'

export interface Problem {
  readonly question: string
  /** One calculation a sentence: "14 + 9 = 23. 23 - 5 = 18." */
  readonly solution: string
  readonly answer: string
}

/** What nano is trained on. */
export const knownFamilies = ['plain', 'changes', 'groups', 'compare', 'money', 'share'] as const
/** Told from the end: nano has seen only those with one change, and seldom. Fine-tuning on this family shows that it learns. */
export const backwardFamily = 'backward' as const
export type Family = (typeof knownFamilies)[number] | typeof backwardFamily

const names = 'Ada Ben Cleo Dan Eva Finn Gina Hugo Iris Jack Kim Leo Mia Noah Olga Paul Rosa Sam Tara Zoe'.split(' ')
const things =
  'apples pears plums nuts cookies eggs books pens cards coins stamps shells stones marbles balls toys beads buttons flowers keys'.split(
    ' ',
  )
const containers = 'boxes bags baskets jars shelves rows'.split(' ')

/** The draws of one problem. */
interface Draw {
  /** A whole number of [low, high]. */
  int(low: number, high: number): number
  one<T>(list: readonly T[]): T
  /** Two different ones. */
  two<T>(list: readonly T[]): [T, T]
}

function draws(seed: number, index: number): Draw {
  let count = 0
  const int = (low: number, high: number) => low + (randomBits(seed, index, count++) % (high - low + 1))
  const one = <T>(list: readonly T[]): T => list[int(0, list.length - 1)]
  const two = <T>(list: readonly T[]): [T, T] => {
    const first = int(0, list.length - 1)
    return [list[first], list[(first + int(1, list.length - 1)) % list.length]]
  }
  return { int, one, two }
}

const problem = (question: string, steps: readonly string[], answer: number): Problem => ({
  question,
  solution: `${steps.join('. ')}.`,
  answer: String(answer),
})

const makers: Record<Family, (draw: Draw) => Problem> = {
  plain({ int, one }) {
    const kind = one(['+', '+', '-', '-', '*', '/'])
    let [a, b] = [int(1, 60), int(1, 39)]
    if (kind === '-') [a, b] = [a + b, one([a, b])]
    if (kind === '*' || kind === '/') [a, b] = [int(2, 9), int(2, 9)]
    if (kind === '/') a *= b
    const result = kind === '+' ? a + b : kind === '-' ? a - b : kind === '*' ? a * b : a / b
    const words = { '+': 'plus', '-': 'minus', '*': 'times', '/': 'divided by' }[kind]!
    const question = one([
      `What is ${a} ${kind} ${b}?`,
      `Compute ${a} ${kind} ${b}.`,
      `How much is ${a} ${words} ${b}?`,
      `${a} ${kind} ${b} = ?`,
    ])
    return problem(question, [`${a} ${kind} ${b} = ${result}`], result)
  },

  changes(draw) {
    const { int, one, two } = draw
    const [name, other] = two(names)
    const thing = one(things)
    let now = int(5, 60)
    const opening = one([
      `${name} has ${now} ${thing}.`,
      `There are ${now} ${thing} in the house of ${name}.`,
      `At first ${name} has ${now} ${thing}.`,
    ])
    const [sentences, steps]: string[][] = [[], []]
    const count = int(1, 3)
    for (let i = 0; i < count; i++) {
      const { amount, text } = change(draw, now, other, 'present')
      sentences.push(`${subject(draw, name, i)} ${text}.`)
      steps.push(step(now, amount))
      now += amount
    }
    const ending = one([`How many ${thing} does ${name} have now?`, `How many ${thing} are there in the end?`])
    return problem([opening, ...sentences, ending].join(' '), steps, now)
  },

  groups({ int, one, two }) {
    const [name, other] = two(names)
    const [groups, each] = [int(2, 9), int(2, 9)]
    const [container, thing] = [one(containers), one(things)]
    const all = groups * each
    const opening = one([
      `There are ${groups} ${container} with ${each} ${thing} each.`,
      `${name} has ${groups} ${container} of ${each} ${thing}.`,
      `Each of the ${groups} ${container} of ${name} holds ${each} ${thing}.`,
    ])
    const first = `${groups} * ${each} = ${all}`
    const kind = one(['', '+', '-'])
    if (kind === '') return problem(`${opening} How many ${thing} are there in all?`, [first], all)
    const change = kind === '+' ? int(2, 18) : int(1, all - 1)
    const next = kind === '+' ? all + change : all - change
    const middle =
      kind === '+'
        ? one([`${name} buys ${change} more.`, `${other} brings ${change} more.`])
        : one([`${change} are lost.`, `${name} gives ${change} to ${other}.`])
    const ending = one([`How many ${thing} are there now?`, `How many ${thing} does that make?`])
    return problem(`${opening} ${middle} ${ending}`, [first, `${all} ${kind} ${change} = ${next}`], next)
  },

  compare({ int, one, two }) {
    const [name, other] = two(names)
    const thing = one(things)
    const mine = int(3, 40)
    const more = mine < 6 || int(0, 1) === 1
    const difference = more ? int(2, 18) : int(2, mine - 2)
    const theirs = more ? mine + difference : mine - difference
    const opening = `${name} has ${mine} ${thing}. ${other} has ${difference} ${more ? 'more' : 'fewer'} than ${name}.`
    const first = `${mine} ${more ? '+' : '-'} ${difference} = ${theirs}`
    if (int(0, 1) === 0) return problem(`${opening} How many ${thing} does ${other} have?`, [first], theirs)
    const ending = one([
      `How many ${thing} do they have together?`,
      `How many ${thing} do ${name} and ${other} have in all?`,
    ])
    return problem(`${opening} ${ending}`, [first, `${mine} + ${theirs} = ${mine + theirs}`], mine + theirs)
  },

  money({ int, one }) {
    const name = one(names)
    const thing = one(things)
    const [price, count] = [int(2, 9), int(2, 9)]
    const cost = price * count
    const first = `${price} * ${count} = ${cost}`
    const opening = one([
      `One of the ${thing} costs ${price} dollars. ${name} buys ${count} of them`,
      `${name} buys ${count} ${thing} for ${price} dollars each`,
    ])
    if (int(0, 2) === 0) return problem(`${opening}. How many dollars does ${name} pay?`, [first], cost)
    const pays = cost + int(1, 99 - cost)
    const change = pays - cost
    const ending = one([`How much change does ${name} get?`, `How many dollars does ${name} get back?`])
    return problem(
      `${opening} and pays with ${pays} dollars. ${ending}`,
      [first, `${pays} - ${cost} = ${change}`],
      change,
    )
  },

  share({ int, one }) {
    const name = one(names)
    const thing = one(things)
    const [friends, each] = [int(2, 9), int(2, 9)]
    const all = friends * each
    const first = `${all} / ${friends} = ${each}`
    const opening = one([
      `${name} shares ${all} ${thing} equally among ${friends} friends.`,
      `${all} ${thing} are divided equally among ${friends} children.`,
      `${name} puts ${all} ${thing} equally into ${friends} ${one(containers)}.`,
    ])
    const one_ = opening.includes('friends') ? 'friend' : opening.includes('children') ? 'child' : 'of them'
    if (int(0, 1) === 0) return problem(`${opening} How many ${thing} does each ${one_} get?`, [first], each)
    const extra = int(2, 29)
    return problem(
      `${opening} Then each ${one_} gets ${extra} more. How many ${thing} does each ${one_} have now?`,
      [first, `${each} + ${extra} = ${each + extra}`],
      each + extra,
    )
  },

  backward(draw) {
    return backward(draw, draw.int(1, 3))
  },
}

/** What was there before `count` changes, given what is there after them. */
function backward(draw: Draw, count: number): Problem {
  const { int, one, two } = draw
  const [name, other] = two(names)
  const thing = one(things)
  const start = int(8, 60)
  let now = start
  const [sentences, steps]: string[][] = [[], []]
  for (let i = 0; i < count; i++) {
    const { amount, text } = change(draw, now, other, 'past')
    sentences.push(`${subject(draw, name, i)} ${text}.`)
    now += amount
    steps.unshift(step(now, -amount))
  }
  const opening = one([`${name} had some ${thing}.`, `At first ${name} had some ${thing}.`])
  const ending = one([`How many ${thing} did ${name} have at first?`, `How many ${thing} were there at the beginning?`])
  return problem([opening, ...sentences, `Now ${name} has ${now} ${thing}.`, ending].join(' '), steps, start)
}

/** Something that leaves between 1 and 99 of `now`. */
function change({ int, one }: Draw, now: number, other: string, tense: 'present' | 'past') {
  const up = now < 12 || (now < 70 && int(0, 1) === 1)
  const size = up ? int(2, 29) : int(2, Math.min(29, now - 1))
  const [present, past] = up
    ? one([
        [`buys ${size} more`, `bought ${size} more`],
        [`finds ${size} more`, `found ${size} more`],
        [`gets ${size} from ${other}`, `got ${size} from ${other}`],
      ])
    : one([
        [`gives ${size} to ${other}`, `gave ${size} to ${other}`],
        [`loses ${size}`, `lost ${size}`],
        [`sells ${size}`, `sold ${size}`],
      ])
  return { amount: up ? size : -size, text: tense === 'past' ? past : present }
}

const subject = ({ one }: Draw, name: string, i: number): string =>
  i === 0 ? name : one([`Then ${name}`, `After that ${name}`])

const step = (now: number, amount: number): string =>
  `${now} ${amount < 0 ? '-' : '+'} ${Math.abs(amount)} = ${now + amount}`

/** Problem `index` of a family. */
export const makeProblem = (family: Family, seed: number, index: number): Problem => makers[family](draws(seed, index))

/** The shortest kind of backward problem: one change. */
export const makeShortBackward = (seed: number, index: number): Problem => backward(draws(seed, index), 1)

const mixture: readonly Family[] = [
  ...Array<Family>(15).fill('plain'),
  ...Array<Family>(30).fill('changes'),
  ...Array<Family>(18).fill('groups'),
  ...Array<Family>(14).fill('compare'),
  ...Array<Family>(12).fill('money'),
  ...Array<Family>(9).fill('share'),
  ...Array<Family>(2).fill('backward'),
]

/** Problem `index` of nano's training mixture: the known families, and of every fifty problems a short backward one. */
export function makeMixed(seed: number, index: number): Problem {
  const family = mixture[randomBits(seed, 0x6d6978, index) % mixture.length]
  return family === backwardFamily ? makeShortBackward(seed, index) : makeProblem(family, seed, index)
}
