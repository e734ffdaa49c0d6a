import { nameCounter, uniform } from '../random.ts'
import { type Complex, type Point, valueAt, variables } from './complex.ts'
import type { MathJson } from './math-json.ts'

/** Where formulas are compared. */
export interface Place extends Point {
  /** Both must have a value here; elsewhere there may be none, or one that rounding has eaten. */
  readonly isPlain: boolean
  /** Letters are of both signs here: nothing is asked where the right formula is not real. */
  readonly isSigned: boolean
}

const rounds = { plain: 5, wide: 4, signed: 8 }

/**
 * The letters as numbers from 0.4 to 2.4; then as far apart as 0.1 and 100; then those within |...|, max or min with both signs, and up
 * to 1000. All others stay positive, as they are meant in \sqrt{x^2} = x.
 */
export function places(formulas: readonly (MathJson | undefined)[]): Place[] {
  const letters = new Set<string>()
  for (const json of formulas) variables(json, letters)
  const signed = new Set<string>()
  for (const json of formulas) withSigns(json, signed)
  const plain = drawn(rounds.plain, (name, round) => 0.4 + 2 * uniform(nameCounter(name), round))
  if (letters.size === 0) return plain.slice(0, 1).map((variable) => ({ variable, isPlain: true, isSigned: false }))
  const wide = drawn(rounds.wide, (name, round) => 10 ** (3 * uniform(nameCounter(name), 100 + round) - 1))
  const both = drawn(signed.size === 0 ? 0 : rounds.signed, (name, round) => {
    const size = 10 ** (4 * uniform(nameCounter(name), 200 + round) - 1)
    return signed.has(name) && uniform(nameCounter(name), 300 + round) < 0.5 ? -size : size
  })
  return [
    ...plain.map((variable) => ({ variable, isPlain: true, isSigned: false })),
    ...wide.map((variable) => ({ variable, isPlain: false, isSigned: false })),
    ...both.map((variable) => ({ variable, isPlain: false, isSigned: true })),
  ]
}

const drawn = (count: number, value: (name: string, round: number) => number) =>
  Array.from({ length: count }, (_, round) => (name: string) => value(name, round))

const signOperators: readonly unknown[] = ['Abs', 'Max', 'Min', 'Floor', 'Ceil']

/** The letters whose sign an operator asks for. */
function withSigns(json: MathJson | undefined, found: Set<string>): void {
  if (!Array.isArray(json)) return
  if (signOperators.includes(json[0])) variables(json, found)
  else for (const part of json.slice(1)) withSigns(part, found)
}

/** What each operation's result is off by: far more than its rounding. */
const slip = 2 ** -46

/** How far rounding may have moved the value of a formula: what it moves when each operation is a little off. */
export function noise(json: MathJson | undefined, value: Complex, point: Point): number {
  let most = 0
  for (let draw = 0; draw < 3; draw++) {
    let n = 0
    const off = () => {
      const u = 2 * uniform(draw, n++) - 1
      return 1 + slip * (u + Math.sign(u))
    }
    const moved = valueAt(json, { ...point, rounded: ([a, b]) => [a * off(), b * off()] })
    if (moved) most = Math.max(most, distance(moved, value))
  }
  return most
}

export const distance = (x: Complex, y: Complex): number => Math.hypot(x[0] - y[0], x[1] - y[1])
