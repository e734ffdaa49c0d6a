import { filterOf } from './filters.ts'
import { formatPercent } from './format.ts'
import { member, sliceOf } from './methods.ts'
import type { Expression, Scope } from './scope.ts'
import { testOf } from './tests.ts'
import type { TokenStream } from './token-stream.ts'
import {
  arithmetic,
  type Callable,
  compare,
  contains,
  defined,
  equal,
  iterate,
  keyOf,
  str,
  Tuple,
  truth,
  typeName,
  Undefined,
} from './values.ts'

interface Arguments {
  readonly args: (scope: Scope) => unknown[]
  readonly named: (scope: Scope) => Map<string, unknown>
}

export const constants: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ...['true', 'True'].map((name) => [name, true] as const),
  ...['false', 'False'].map((name) => [name, false] as const),
  ...['none', 'None'].map((name) => [name, null] as const),
])

/** Makes functions of expressions, from the loosest operator to the tightest. */
export class Expressions {
  private readonly tokens: TokenStream

  constructor(tokens: TokenStream) {
    this.tokens = tokens
  }

  /** One or several with commas: a tuple. */
  tuple(mayBeConditional = true, ends: readonly string[] = [], inBrackets = false): Expression {
    const all: Expression[] = []
    let isTuple = false
    const isEnd = () =>
      this.tokens.is('variable end') ||
      this.tokens.is('end') ||
      this.tokens.is('operator', ')') ||
      ends.some((end) => this.tokens.is('name', end))
    for (;;) {
      if (all.length > 0) this.tokens.expect('operator', ',')
      if (isEnd()) break
      all.push(mayBeConditional || inBrackets ? this.expression() : this.or())
      if (!this.tokens.is('operator', ',')) break
      isTuple = true
    }
    if (!isTuple && all.length === 1) return all[0]
    if (!isTuple && !inBrackets) this.tokens.fail('an expression is missing')
    return (scope) => Tuple.from(all.map((one) => one(scope)))
  }

  expression(): Expression {
    let value = this.or()
    while (this.tokens.keyword('if')) {
      const [then, test] = [value, this.or()]
      const otherwise = this.tokens.keyword('else') ? this.expression() : null
      value = (scope) =>
        truth(test(scope)) ? then(scope) : otherwise ? otherwise(scope) : new Undefined('the condition has no else')
    }
    return value
  }

  private or(): Expression {
    let left = this.and()
    while (this.tokens.keyword('or')) {
      const [a, b] = [left, this.and()]
      left = (scope) => {
        const value = a(scope)
        return truth(value) ? value : b(scope)
      }
    }
    return left
  }

  private and(): Expression {
    let left = this.not()
    while (this.tokens.keyword('and')) {
      const [a, b] = [left, this.not()]
      left = (scope) => {
        const value = a(scope)
        return truth(value) ? b(scope) : value
      }
    }
    return left
  }

  private not(): Expression {
    if (!this.tokens.keyword('not')) return this.comparison()
    const value = this.not()
    return (scope) => !truth(value(scope))
  }

  /** a < b < c: every neighbour is compared. */
  private comparison(): Expression {
    const first = this.sum()
    const more: { operator: string; value: Expression }[] = []
    for (;;) {
      let operator = this.tokens.operator('==', '!=', '<', '<=', '>', '>=') ?? this.tokens.keyword('in')
      if (!operator && this.tokens.is('name', 'not') && this.tokens.is('name', 'in', 1)) {
        this.tokens.next()
        this.tokens.next()
        operator = 'not in'
      }
      if (!operator) break
      more.push({ operator, value: this.sum() })
    }
    if (more.length === 0) return first
    return (scope) => {
      let left = first(scope)
      for (const { operator, value } of more) {
        const right = value(scope)
        if (!holds(operator, left, right)) return false
        left = right
      }
      return true
    }
  }

  private binary(next: () => Expression, operators: readonly string[]): Expression {
    let left = next()
    for (;;) {
      const operator = this.tokens.operator(...operators)
      if (!operator) return left
      const [a, b] = [left, next()]
      left = (scope) => {
        const [x, y] = [a(scope), b(scope)]
        const made = operator === '%' && typeof x === 'string' ? formatPercent(x, y) : arithmetic(operator as '+', x, y)
        scope.limits.check(made)
        return made
      }
    }
  }

  private sum(): Expression {
    return this.binary(() => this.concatenation(), ['+', '-'])
  }

  private concatenation(): Expression {
    const all = [this.product()]
    while (this.tokens.operator('~')) all.push(this.product())
    if (all.length === 1) return all[0]
    return (scope) => {
      const made = all.map((one) => str(one(scope))).join('')
      scope.limits.check(made)
      return made
    }
  }

  private product(): Expression {
    return this.binary(() => this.power(), ['*', '/', '//', '%'])
  }

  private power(): Expression {
    return this.binary(() => this.unary(), ['**'])
  }

  private unary(withFilter = true): Expression {
    const sign = this.tokens.operator('-', '+')
    let value: Expression
    if (sign) {
      const inner = this.unary(false)
      value = (scope) => (sign === '-' ? negated(inner(scope)) : arithmetic('+', 0n, inner(scope)))
    } else value = this.primary()
    value = this.postfix(value)
    return withFilter ? this.filtered(value) : value
  }

  private primary(): Expression {
    const token = this.tokens.next()
    switch (token.type) {
      case 'name':
        if (constants.has(token.text)) {
          const value = constants.get(token.text)
          return () => value
        }
        return (scope) => scope.get(token.text)
      case 'string': {
        let text = token.text
        while (this.tokens.is('string')) text += this.tokens.expect('string')
        return () => text
      }
      case 'integer': {
        const value = BigInt(token.text.replaceAll('_', '').toLowerCase())
        return () => value
      }
      case 'float': {
        const value = Number(token.text.replaceAll('_', ''))
        return () => value
      }
      case 'operator': {
        if (token.text === '(') {
          const inner = this.tuple(true, [], true)
          this.tokens.expect('operator', ')')
          return inner
        }
        if (token.text === '[') {
          const items = this.list(']', () => this.expression())
          return (scope) => items.map((item) => item(scope))
        }
        if (token.text === '{') {
          const pairs = this.list('}', () => {
            const key = this.expression()
            this.tokens.expect('operator', ':')
            return [key, this.expression()] as const
          })
          return (scope) => new Map(pairs.map(([key, value]) => [keyOf(key(scope)), value(scope)]))
        }
      }
    }
    return this.tokens.fail(`unexpected '${token.text}'`)
  }

  private list<T>(close: string, one: () => T): T[] {
    const all: T[] = []
    while (!this.tokens.operator(close)) {
      if (all.length > 0) {
        this.tokens.expect('operator', ',')
        if (this.tokens.operator(close)) break
      }
      all.push(one())
    }
    return all
  }

  private postfix(value: Expression): Expression {
    let left = value
    for (;;) {
      if (this.tokens.operator('.')) left = this.memberOf(left)
      else if (this.tokens.operator('[')) left = this.itemOf(left)
      else if (this.tokens.is('operator', '(')) left = this.callOf(left)
      else return left
    }
  }

  private filtered(value: Expression): Expression {
    let left = value
    for (;;) {
      if (this.tokens.is('operator', '|')) left = this.filter(left)
      else if (this.tokens.is('name', 'is')) left = this.test(left)
      else if (this.tokens.is('operator', '(')) left = this.callOf(left)
      else return left
    }
  }

  private memberOf(value: Expression): Expression {
    if (this.tokens.is('integer')) {
      const index = BigInt(this.tokens.expect('integer'))
      return (scope) => member(value(scope), index, true)
    }
    const name = this.tokens.expect('name')
    return (scope) => member(value(scope), name)
  }

  private itemOf(value: Expression): Expression {
    const keys = this.list(']', () => this.slice())
    if (keys.length === 0) this.tokens.fail('an index is missing')
    const [key] = keys
    if (keys.length > 1) return (scope) => member(value(scope), Tuple.from(keys.map((one) => one.index!(scope))), true)
    const { index, bounds } = key
    if (index) return (scope) => member(value(scope), index(scope), true)
    return (scope) => {
      const [from, to, step] = bounds!.map((bound) => bound?.(scope) ?? null)
      return sliceOf(value(scope), from, to, step)
    }
  }

  private slice(): { index?: Expression; bounds?: (Expression | null)[] } {
    const isNext = () =>
      !this.tokens.is('operator', ':') && !this.tokens.is('operator', ']') && !this.tokens.is('operator', ',')
    const first = isNext() ? this.expression() : null
    if (!this.tokens.operator(':')) return { index: first ?? this.tokens.fail('an index is missing') }
    const second = isNext() ? this.expression() : null
    const third = this.tokens.operator(':') && isNext() ? this.expression() : null
    return { bounds: [first, second, third] }
  }

  private arguments(): Arguments {
    const args: { value: Expression; isSpread: boolean }[] = []
    const named: { name: string | null; value: Expression }[] = []
    this.tokens.expect('operator', '(')
    this.list(')', () => {
      if (this.tokens.operator('*')) args.push({ value: this.expression(), isSpread: true })
      else if (this.tokens.operator('**')) named.push({ name: null, value: this.expression() })
      else if (this.tokens.is('name') && this.tokens.is('operator', '=', 1)) {
        const name = this.tokens.expect('name')
        this.tokens.next()
        named.push({ name, value: this.expression() })
      } else {
        if (named.length > 0) this.tokens.fail('an argument without a name follows one with a name')
        args.push({ value: this.expression(), isSpread: false })
      }
    })
    return {
      args: (scope) => args.flatMap(({ value, isSpread }) => (isSpread ? [...iterate(value(scope))] : [value(scope)])),
      named: (scope) => {
        const all = new Map<string, unknown>()
        for (const { name, value } of named) {
          const given = value(scope)
          if (name !== null) all.set(name, given)
          else if (given instanceof Map) for (const [key, item] of given) all.set(str(key), item)
          else throw new Error(`** takes a dict, not a ${typeName(given)}`)
        }
        return all
      },
    }
  }

  private callOf(f: Expression): Expression {
    const { args, named } = this.arguments()
    const call: Expression = (scope) => callOf(f(scope), args(scope), named(scope), scope)
    callParts.set(call, { f, args, named })
    return call
  }

  filter(value: Expression, isFirst = false): Expression {
    if (!isFirst) this.tokens.expect('operator', '|')
    let name = this.tokens.expect('name')
    while (this.tokens.operator('.')) name += `.${this.tokens.expect('name')}`
    const { args, named } = this.tokens.is('operator', '(') ? this.arguments() : noArguments
    const made: Expression = (scope) => {
      const result = filterOf(name)(value(scope), args(scope), named(scope))
      scope.limits.check(result)
      return result
    }
    return isFirst && this.tokens.is('operator', '|') ? this.filtered(made) : made
  }

  private test(value: Expression): Expression {
    this.tokens.expect('name', 'is')
    const isNot = this.tokens.keyword('not') !== undefined
    let name = this.tokens.expect('name')
    while (this.tokens.operator('.')) name += `.${this.tokens.expect('name')}`
    const token = this.tokens.peek()
    let given = noArguments
    if (this.tokens.is('operator', '(')) given = this.arguments()
    else if (
      token &&
      (['name', 'string', 'integer', 'float'].includes(token.type) ||
        (token.type === 'operator' && '[{'.includes(token.text))) &&
      !(token.type === 'name' && ['else', 'or', 'and'].includes(token.text))
    ) {
      if (this.tokens.is('name', 'is')) this.tokens.fail("several tests with 'is'")
      const argument = this.postfix(this.primary())
      given = { args: (scope) => [argument(scope)], named: () => new Map() }
    }
    const { args, named } = given
    return (scope) => truth(testOf(name)(value(scope), args(scope), named(scope))) !== isNot
  }
}

const noArguments: Arguments = { args: () => [], named: () => new Map() }
/** The parts of calls, for call blocks. */
export const callParts = new WeakMap<Expression, Arguments & { readonly f: Expression }>()

export function callOf(
  f: unknown,
  args: readonly unknown[],
  named: ReadonlyMap<string, unknown>,
  scope: Scope,
): unknown {
  if (typeof defined(f) !== 'function') throw new Error(`a ${typeName(f)} cannot be called`)
  const result = (f as Callable)(args, named)
  scope.limits.check(result)
  return result
}

function negated(value: unknown): unknown {
  if (typeof value === 'number') return -value
  return arithmetic('-', 0n, value)
}

function holds(operator: string, a: unknown, b: unknown): boolean {
  switch (operator) {
    case '==':
      return equal(a, b)
    case '!=':
      return !equal(a, b)
    case 'in':
      return contains(b, a)
    case 'not in':
      return !contains(b, a)
    case '<':
      return compare(a, b) < 0
    case '<=':
      return compare(a, b) <= 0
    case '>':
      return compare(a, b) > 0
    default:
      return compare(a, b) >= 0
  }
}
