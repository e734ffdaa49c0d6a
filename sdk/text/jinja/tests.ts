import { isLower, isUpper } from './methods.ts'
import { arithmetic, compare, contains, equal, isIterable, str, Undefined, View } from './values.ts'

export type Test = (value: unknown, args: readonly unknown[], named: ReadonlyMap<string, unknown>) => unknown

const isNumber = (value: unknown) => ['bigint', 'number', 'boolean'].includes(typeof value)
const equals: Test = (value, [other]) => equal(value, other)
const differs: Test = (value, [other]) => !equal(value, other)
const less: Test = (value, [other]) => compare(value, other) < 0
const more: Test = (value, [other]) => compare(value, other) > 0
const most: Test = (value, [other]) => compare(value, other) <= 0
const least: Test = (value, [other]) => compare(value, other) >= 0
const rest = (value: unknown, by: unknown) => arithmetic('%', value, by)

const tests: Readonly<Record<string, Test>> = {
  odd: (value) => equal(rest(value, 2n), 1n),
  even: (value) => equal(rest(value, 2n), 0n),
  divisibleby: (value, [by]) => equal(rest(value, by), 0n),
  defined: (value) => !(value instanceof Undefined),
  undefined: (value) => value instanceof Undefined,
  none: (value) => value === null,
  boolean: (value) => typeof value === 'boolean',
  true: (value) => value === true,
  false: (value) => value === false,
  integer: (value) => typeof value === 'bigint',
  float: (value) => typeof value === 'number',
  number: isNumber,
  string: (value) => typeof value === 'string',
  lower: (value) => isLower(str(value)),
  upper: (value) => isUpper(str(value)),
  mapping: (value) => value instanceof Map,
  sequence: (value) =>
    typeof value === 'string' ||
    value instanceof Map ||
    value instanceof Undefined ||
    (Array.isArray(value) && !(value instanceof View)),
  iterable: isIterable,
  callable: (value) => typeof value === 'function' || value instanceof Undefined,
  escaped: () => false,
  sameas: (value, [other]) => value === other,
  in: (value, [all]) => contains(all, value),
  ...{ '==': equals, eq: equals, equalto: equals, '!=': differs, ne: differs },
  ...{ '<': less, lt: less, lessthan: less, '>': more, gt: more, greaterthan: more },
  ...{ '<=': most, le: most, '>=': least, ge: least },
}

/** Throws for one that is not there. */
export function testOf(name: string): Test {
  if (Object.hasOwn(tests, name)) return tests[name]
  throw new Error(`there is no test '${name}'`)
}
