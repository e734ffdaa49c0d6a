import { filterOf } from './filters.ts'
import { formatPercent } from './format.ts'
import { type Token, type TokenType, tokenize } from './lexer.ts'
import { member, sliceOf } from './methods.ts'
import { testOf } from './tests.ts'
import {
  arithmetic,
  type Callable,
  compare,
  contains,
  defined,
  equal,
  Generator,
  iterate,
  keyOf,
  Namespace,
  str,
  Tuple,
  truth,
  typeName,
  Undefined,
} from './values.ts'

// A template becomes functions: an expression gives a value, a statement adds to the output.

/** What one rendering may use up. */
export interface Limits {
  /** Counts a value that was made, and the time. Throws where it is too much. */
  check(made: unknown): void
}

export class Scope {
  readonly variables = new Map<string, unknown>()
  readonly limits: Limits
  private readonly outer: Scope | null

  constructor(limits: Limits, outer: Scope | null = null) {
    this.limits = limits
    this.outer = outer
  }

  inner(): Scope {
    return new Scope(this.limits, this)
  }

  get(name: string): unknown {
    for (let scope: Scope | null = this; scope; scope = scope.outer)
      if (scope.variables.has(name)) return scope.variables.get(name)
    return new Undefined(`'${name}' is undefined`)
  }
}

type Expression = (scope: Scope) => unknown
/** 'break' and 'continue' go up to their loop. */
type Signal = 'break' | 'continue' | undefined
type Statement = (scope: Scope, out: string[]) => Signal
type Assign = (scope: Scope, value: unknown) => void

interface Arguments {
  readonly args: (scope: Scope) => unknown[]
  readonly named: (scope: Scope) => Map<string, unknown>
}

/** Parses a template. Throws SyntaxError. */
export function compile(source: string): Statement {
  return new Parser(tokenize(source)).template()
}

const constants = new Map<string, unknown>([
  ...['true', 'True'].map((name) => [name, true] as const),
  ...['false', 'False'].map((name) => [name, false] as const),
  ...['none', 'None'].map((name) => [name, null] as const),
])
/** What a macro gets beside its parameters, where it names them. */
const extras = ['varargs', 'kwargs', 'caller']

class Parser {
  private readonly tokens: readonly Token[]
  private at = 0
  /** Names that were read, by macro that is being parsed. */
  private reads: Set<string>[] = []

  constructor(tokens: readonly Token[]) {
    this.tokens = tokens
  }

  template(): Statement {
    const body = this.body([])
    return body
  }

  // Tokens

  private peek(offset = 0): Token | undefined {
    return this.tokens[this.at + offset]
  }

  private fail(message: string): never {
    const token = this.peek() ?? this.tokens.at(-1)
    throw new SyntaxError(`line ${token?.line ?? 1}: ${message}`)
  }

  private is(type: TokenType, text?: string, offset = 0): boolean {
    const token = this.peek(offset)
    return token?.type === type && (text === undefined || token.text === text)
  }

  private skip(type: TokenType, text?: string): boolean {
    if (!this.is(type, text)) return false
    this.at++
    return true
  }

  private expect(type: TokenType, text?: string): string {
    const token = this.peek()
    if (!token || !this.skip(type, text))
      this.fail(
        `expected ${text === undefined ? `a ${type}` : `'${text}'`}, got ${token ? `'${token.text}'` : 'the end'}`,
      )
    return token!.text
  }

  private operator(...texts: string[]): string | undefined {
    const token = this.peek()
    if (token?.type !== 'operator' || !texts.includes(token.text)) return undefined
    this.at++
    return token.text
  }

  private keyword(...names: string[]): string | undefined {
    const token = this.peek()
    if (token?.type !== 'name' || !names.includes(token.text)) return undefined
    this.at++
    return token.text
  }

  // Statements

  /** Up to a tag of one of these names, whose name is read; up to the end where there are none. */
  private body(ends: readonly string[]): Statement {
    const parts: Statement[] = []
    for (;;) {
      const token = this.peek()
      if (!token) {
        if (ends.length > 0) this.fail(`'${ends.at(-1)}' is missing`)
        break
      }
      this.at++
      if (token.type === 'data') parts.push((_, out) => void out.push(token.text))
      else if (token.type === 'variable begin') {
        const value = this.tuple()
        this.expect('variable end')
        parts.push((scope, out) => {
          const written = str(value(scope))
          scope.limits.check(written)
          out.push(written)
          return undefined
        })
      } else {
        if (this.peek()?.type === 'name' && ends.includes(this.peek()!.text)) break
        parts.push(this.statement())
      }
    }
    return (scope, out) => {
      for (const part of parts) {
        const signal = part(scope, out)
        if (signal) return signal
      }
      return undefined
    }
  }

  /** The rest of a tag that has nothing more in it. */
  private end(): void {
    this.expect('end')
  }

  /** A block up to its closing tag, which is read. */
  private block(end: string): Statement {
    this.end()
    const body = this.body([end])
    this.expect('name', end)
    this.end()
    return body
  }

  private statement(): Statement {
    const name = this.expect('name')
    switch (name) {
      case 'if':
        return this.ifStatement()
      case 'for':
        return this.forStatement()
      case 'set':
        return this.setStatement()
      case 'macro':
        return this.macroStatement()
      case 'call':
        return this.callStatement()
      case 'filter': {
        const filter = this.filter((scope) => scope.get(' body'), true)
        const body = this.block('endfilter')
        return (scope, out) => {
          const inner = scope.inner()
          inner.variables.set(' body', captured(body, inner))
          out.push(str(filter(inner)))
          return undefined
        }
      }
      case 'with':
        return this.withStatement()
      case 'generation': {
        // transformers' own: it marks what the assistant says.
        return this.block('endgeneration')
      }
      case 'print': {
        const value = this.tuple()
        this.end()
        return (scope, out) => void out.push(str(value(scope)))
      }
      case 'break':
      case 'continue':
        this.end()
        return () => name
      default:
        return this.fail(`the tag '${name}' is not supported`)
    }
  }

  private ifStatement(): Statement {
    const branches: { test: Expression; body: Statement }[] = []
    let otherwise: Statement | null = null
    const test = this.tuple(false)
    this.end()
    branches.push({ test, body: this.body(['elif', 'else', 'endif']) })
    for (;;) {
      if (this.keyword('elif')) {
        const test = this.tuple(false)
        this.end()
        branches.push({ test, body: this.body(['elif', 'else', 'endif']) })
      } else if (this.keyword('else')) {
        this.end()
        otherwise = this.body(['endif'])
      } else {
        this.expect('name', 'endif')
        this.end()
        break
      }
    }
    return (scope, out) => {
      const branch = branches.find(({ test }) => truth(test(scope)))
      return (branch ? branch.body : otherwise)?.(scope, out)
    }
  }

  private forStatement(): Statement {
    const target = this.target(['in'])
    this.expect('name', 'in')
    const items = this.tuple(false, ['recursive', 'if'])
    const test = this.keyword('if') ? this.expression() : null
    const isRecursive = this.keyword('recursive') !== undefined
    this.end()
    const body = this.body(['else', 'endfor'])
    let otherwise: Statement | null = null
    if (this.keyword('else')) {
      this.end()
      otherwise = this.body(['endfor'])
    }
    this.expect('name', 'endfor')
    this.end()
    const run = (scope: Scope, out: string[], all: unknown, depth: number): void => {
      const kept = test
        ? new Generator(
            (function* () {
              for (const item of iterate(all)) {
                const inner = scope.inner()
                target(inner, item)
                if (truth(test(inner))) yield item
              }
            })(),
          )
        : all
      const again = (items: unknown): string => {
        const own: string[] = []
        run(scope, own, items, depth + 1)
        return own.join('')
      }
      const loop = new Loop(kept, depth, isRecursive ? again : null)
      let isElse = true
      while (loop.next()) {
        scope.limits.check(null)
        const inner = scope.inner()
        target(inner, loop.item)
        inner.variables.set('loop', loop.value)
        const signal = body(inner, out)
        if (signal === 'break') break
        // Jinja's else is for loops of which no round came to its end.
        if (signal === undefined) isElse = false
      }
      if (isElse) otherwise?.(scope.inner(), out)
    }
    return (scope, out) => void run(scope, out, items(scope), 0)
  }

  private setStatement(): Statement {
    const target = this.target(['='], true)
    if (this.operator('=')) {
      const value = this.tuple()
      this.end()
      return (scope) => void target(scope, value(scope))
    }
    const filter = this.is('operator', '|') ? this.filter((scope) => scope.get(' body')) : null
    const body = this.block('endset')
    return (scope) => {
      const inner = scope.inner()
      const written = captured(body, inner)
      if (filter) inner.variables.set(' body', written)
      target(scope, filter ? filter(inner) : written)
      return undefined
    }
  }

  private withStatement(): Statement {
    const pairs: { target: Assign; value: Expression }[] = []
    while (!this.is('end')) {
      if (pairs.length > 0) this.expect('operator', ',')
      const target = this.target(['='])
      this.expect('operator', '=')
      pairs.push({ target, value: this.expression() })
    }
    const body = this.block('endwith')
    return (scope, out) => {
      const inner = scope.inner()
      const values = pairs.map(({ value }) => value(scope))
      for (const [i, { target }] of pairs.entries()) target(inner, values[i])
      return body(inner, out)
    }
  }

  /** Parameters, in brackets where there are any. */
  private parameters(): { name: string; otherwise: Expression | null }[] {
    const found: { name: string; otherwise: Expression | null }[] = []
    this.expect('operator', '(')
    while (!this.operator(')')) {
      if (found.length > 0) this.expect('operator', ',')
      const name = this.expect('name')
      const otherwise = this.operator('=') ? this.expression() : null
      if (!otherwise && found.at(-1)?.otherwise) this.fail('a parameter without a default follows one with a default')
      found.push({ name, otherwise })
    }
    return found
  }

  /** Parameters and body of a macro, as what makes it in the scope where it stands. */
  private macro(name: string, end: string, hasBrackets: boolean): (scope: Scope) => Callable {
    this.reads.push(new Set())
    const parameters = hasBrackets ? this.parameters() : []
    const body = end === 'endcall' ? null : this.block(end)
    return this.macroOf(name, parameters, body!)
  }

  private macroOf(
    name: string,
    parameters: readonly { name: string; otherwise: Expression | null }[],
    body: Statement,
  ): (scope: Scope) => Callable {
    const reads = this.reads.pop()!
    const takes = (extra: string) => reads.has(extra) && !parameters.some((parameter) => parameter.name === extra)
    const [takesMore, takesNamed, takesCaller] = extras.map(takes)
    // A macro reads what stands around it.
    for (const read of reads) if (!extras.includes(read)) this.reads.at(-1)?.add(read)
    return (outer) => {
      const macro: Callable = (args, named) => {
        const scope = outer.inner()
        scope.limits.check(null)
        const rest = new Map(named)
        const missing: { name: string; otherwise: Expression | null }[] = []
        for (const [i, parameter] of parameters.entries()) {
          if (i < args.length) scope.variables.set(parameter.name, args[i])
          else if (rest.has(parameter.name)) {
            scope.variables.set(parameter.name, rest.get(parameter.name))
            rest.delete(parameter.name)
          } else missing.push(parameter)
        }
        if (takesCaller) {
          scope.variables.set('caller', rest.get('caller') ?? new Undefined('the macro was not called by a call block'))
          rest.delete('caller')
        }
        if (takesNamed) scope.variables.set('kwargs', rest)
        else if (rest.size > 0) throw new Error(`the macro '${name}' takes no argument '${[...rest.keys()][0]}'`)
        if (takesMore) scope.variables.set('varargs', Tuple.from(args.slice(parameters.length)))
        else if (args.length > parameters.length)
          throw new Error(`the macro '${name}' takes not more than ${parameters.length} arguments`)
        for (const parameter of missing)
          scope.variables.set(parameter.name, new Undefined(`parameter '${parameter.name}' was not provided`))
        for (const { name, otherwise } of missing) if (otherwise) scope.variables.set(name, otherwise(scope))
        return captured(body, scope)
      }
      const members: Readonly<Record<string, unknown>> = {
        name,
        arguments: Tuple.from(parameters.map((parameter) => parameter.name)),
        catch_varargs: takesMore,
        catch_kwargs: takesNamed,
        caller: takesCaller,
      }
      return Object.assign(macro, { member: (key: string) => (Object.hasOwn(members, key) ? members[key] : undefined) })
    }
  }

  private macroStatement(): Statement {
    const name = this.expect('name')
    const macro = this.macro(name, 'endmacro', true)
    return (scope) => void scope.variables.set(name, macro(scope))
  }

  private callStatement(): Statement {
    this.reads.push(new Set())
    const parameters = this.is('operator', '(') ? this.parameters() : []
    const own = this.reads.pop()!
    const callee = this.expression()
    const called = lastCall.get(callee)
    if (!called) this.fail('a call block needs a call')
    this.reads.push(own)
    const caller = this.macroOf('caller', parameters, this.block('endcall'))
    return (scope, out) => {
      const { f, args, named } = called!
      const all = named(scope)
      all.set('caller', caller(scope))
      out.push(str(callOf(f(scope), args(scope), all, scope)))
      return undefined
    }
  }

  /** What is assigned to: a name, a member of a namespace, or several. */
  private target(ends: readonly string[], mayBeMember = false): Assign {
    const one = (): Assign => {
      if (this.operator('(')) {
        const inner = this.targets([')'])
        this.expect('operator', ')')
        return inner
      }
      const name = this.expect('name')
      if (constants.has(name)) this.fail(`'${name}' cannot be assigned to`)
      if (!mayBeMember || !this.operator('.')) return (scope, value) => void scope.variables.set(name, value)
      const key = this.expect('name')
      this.reads.at(-1)?.add(name)
      return (scope, value) => {
        const space = scope.get(name)
        if (!(space instanceof Namespace)) throw new Error(`'${name}' is no namespace: its members cannot be set`)
        space.members.set(key, value)
      }
    }
    return this.targets(ends, one)
  }

  private targets(ends: readonly string[], one: () => Assign = () => this.target(ends)): Assign {
    const all: Assign[] = []
    let isTuple = false
    const isEnd = () => ends.some((end) => this.is('operator', end) || this.is('name', end)) || this.is('end')
    do {
      if (isEnd()) break
      all.push(one())
      if (!this.is('operator', ',')) break
      isTuple = true
    } while (this.operator(','))
    if (all.length === 0) this.fail('a name is missing')
    if (!isTuple) return all[0]
    return (scope, value) => {
      const values = [...iterate(value)]
      if (values.length !== all.length) throw new Error(`${values.length} values for ${all.length} names`)
      for (const [i, assign] of all.entries()) assign(scope, values[i])
    }
  }

  // Expressions, from the loosest to the tightest

  /** One or several with commas: a tuple. */
  private tuple(mayBeConditional = true, ends: readonly string[] = [], inBrackets = false): Expression {
    const all: Expression[] = []
    let isTuple = false
    const isEnd = () =>
      this.is('variable end') || this.is('end') || this.is('operator', ')') || ends.some((end) => this.is('name', end))
    for (;;) {
      if (all.length > 0) this.expect('operator', ',')
      if (isEnd()) break
      all.push(mayBeConditional || inBrackets ? this.expression() : this.or())
      if (!this.is('operator', ',')) break
      isTuple = true
    }
    if (!isTuple && all.length === 1) return all[0]
    if (!isTuple && !inBrackets) this.fail('an expression is missing')
    return (scope) => Tuple.from(all.map((one) => one(scope)))
  }

  private expression(): Expression {
    let value = this.or()
    while (this.keyword('if')) {
      const [then, test] = [value, this.or()]
      const otherwise = this.keyword('else') ? this.expression() : null
      value = (scope) =>
        truth(test(scope)) ? then(scope) : otherwise ? otherwise(scope) : new Undefined('the condition has no else')
    }
    return value
  }

  private or(): Expression {
    let left = this.and()
    while (this.keyword('or')) {
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
    while (this.keyword('and')) {
      const [a, b] = [left, this.not()]
      left = (scope) => {
        const value = a(scope)
        return truth(value) ? b(scope) : value
      }
    }
    return left
  }

  private not(): Expression {
    if (!this.keyword('not')) return this.comparison()
    const value = this.not()
    return (scope) => !truth(value(scope))
  }

  /** a < b < c: every neighbour is compared. */
  private comparison(): Expression {
    const first = this.sum()
    const more: { operator: string; value: Expression }[] = []
    for (;;) {
      let operator = this.operator('==', '!=', '<', '<=', '>', '>=') ?? this.keyword('in')
      if (!operator && this.is('name', 'not') && this.is('name', 'in', 1)) {
        this.at += 2
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
      const operator = this.operator(...operators)
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
    while (this.operator('~')) all.push(this.product())
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
    const sign = this.operator('-', '+')
    let value: Expression
    if (sign) {
      const inner = this.unary(false)
      value = (scope) => (sign === '-' ? negated(inner(scope)) : arithmetic('+', 0n, inner(scope)))
    } else value = this.primary()
    value = this.postfix(value)
    return withFilter ? this.filtered(value) : value
  }

  private primary(): Expression {
    const token = this.peek() ?? this.fail('the template ends within an expression')
    this.at++
    switch (token.type) {
      case 'name':
        if (constants.has(token.text)) {
          const value = constants.get(token.text)
          return () => value
        }
        this.reads.at(-1)?.add(token.text)
        return (scope) => scope.get(token.text)
      case 'string': {
        let text = token.text
        while (this.is('string')) text += this.expect('string')
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
          this.expect('operator', ')')
          return inner
        }
        if (token.text === '[') {
          const items = this.list(']', () => this.expression())
          return (scope) => items.map((item) => item(scope))
        }
        if (token.text === '{') {
          const pairs = this.list('}', () => {
            const key = this.expression()
            this.expect('operator', ':')
            return [key, this.expression()] as const
          })
          return (scope) => new Map(pairs.map(([key, value]) => [keyOf(key(scope)), value(scope)]))
        }
      }
    }
    this.at--
    return this.fail(`unexpected '${token.text}'`)
  }

  private list<T>(close: string, one: () => T): T[] {
    const all: T[] = []
    while (!this.operator(close)) {
      if (all.length > 0) {
        this.expect('operator', ',')
        if (this.operator(close)) break
      }
      all.push(one())
    }
    return all
  }

  private postfix(value: Expression): Expression {
    let left = value
    for (;;) {
      if (this.operator('.')) left = this.memberOf(left)
      else if (this.operator('[')) left = this.itemOf(left)
      else if (this.is('operator', '(')) left = this.callOf(left)
      else return left
    }
  }

  private filtered(value: Expression): Expression {
    let left = value
    for (;;) {
      if (this.is('operator', '|')) left = this.filter(left)
      else if (this.is('name', 'is')) left = this.test(left)
      else if (this.is('operator', '(')) left = this.callOf(left)
      else return left
    }
  }

  private memberOf(value: Expression): Expression {
    if (this.is('integer')) {
      const index = BigInt(this.expect('integer'))
      return (scope) => member(value(scope), index, true)
    }
    const name = this.expect('name')
    return (scope) => member(value(scope), name)
  }

  private itemOf(value: Expression): Expression {
    const keys = this.list(']', () => this.slice())
    if (keys.length === 0) this.fail('an index is missing')
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
    const isNext = () => !this.is('operator', ':') && !this.is('operator', ']') && !this.is('operator', ',')
    const first = isNext() ? this.expression() : null
    if (!this.operator(':')) return { index: first ?? this.fail('an index is missing') }
    const second = isNext() ? this.expression() : null
    const third = this.operator(':') && isNext() ? this.expression() : null
    return { bounds: [first, second, third] }
  }

  private arguments(): Arguments {
    const args: { value: Expression; isSpread: boolean }[] = []
    const named: { name: string | null; value: Expression }[] = []
    this.expect('operator', '(')
    this.list(')', () => {
      if (this.operator('*')) args.push({ value: this.expression(), isSpread: true })
      else if (this.operator('**')) named.push({ name: null, value: this.expression() })
      else if (this.is('name') && this.is('operator', '=', 1)) {
        const name = this.expect('name')
        this.at++
        named.push({ name, value: this.expression() })
      } else {
        if (named.length > 0) this.fail('an argument without a name follows one with a name')
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
    lastCall.set(call, { f, args, named })
    return call
  }

  private filter(value: Expression, isFirst = false): Expression {
    if (!isFirst) this.expect('operator', '|')
    let name = this.expect('name')
    while (this.operator('.')) name += `.${this.expect('name')}`
    const { args, named } = this.is('operator', '(') ? this.arguments() : noArguments
    const made: Expression = (scope) => {
      const result = filterOf(name)(value(scope), args(scope), named(scope))
      scope.limits.check(result)
      return result
    }
    return isFirst && this.is('operator', '|') ? this.filtered(made) : made
  }

  private test(value: Expression): Expression {
    this.expect('name', 'is')
    const isNot = this.keyword('not') !== undefined
    let name = this.expect('name')
    while (this.operator('.')) name += `.${this.expect('name')}`
    const token = this.peek()
    let given = noArguments
    if (this.is('operator', '(')) given = this.arguments()
    else if (
      token &&
      (['name', 'string', 'integer', 'float'].includes(token.type) ||
        (token.type === 'operator' && '[{'.includes(token.text))) &&
      !(token.type === 'name' && ['else', 'or', 'and'].includes(token.text))
    ) {
      if (this.is('name', 'is')) this.fail("several tests with 'is'")
      const argument = this.postfix(this.primary())
      given = { args: (scope) => [argument(scope)], named: () => new Map() }
    }
    const { args, named } = given
    return (scope) => truth(testOf(name)(value(scope), args(scope), named(scope))) !== isNot
  }
}

const noArguments: Arguments = { args: () => [], named: () => new Map() }
/** The parts of calls, for call blocks. */
const lastCall = new WeakMap<Expression, Arguments & { readonly f: Expression }>()

function captured(body: Statement, scope: Scope): string {
  const out: string[] = []
  body(scope, out)
  const written = out.join('')
  scope.limits.check(written)
  return written
}

function callOf(f: unknown, args: readonly unknown[], named: ReadonlyMap<string, unknown>, scope: Scope): unknown {
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

/** The items of a for loop, and `loop` within it. */
class Loop {
  index = -1
  item: unknown
  private before: unknown
  private readonly all: Iterator<unknown>
  /** Read ahead. */
  private readonly ahead: unknown[] = []
  private size: number | null
  private changed: unknown[] | null = null
  readonly value: Callable

  constructor(items: unknown, depth: number, again: ((items: unknown) => string) | null) {
    this.all = iterate(items)[Symbol.iterator]()
    this.size = Array.isArray(items) ? items.length : items instanceof Map ? items.size : null
    const call: Callable = ([items]) => {
      if (!again) throw new Error("'loop' can be called in loops that are recursive alone")
      return again(items)
    }
    this.value = Object.assign(call, { member: (name: string) => this.member(name, depth) })
  }

  next(): boolean {
    if (!this.isThere()) return false
    this.before = this.item
    this.item = this.ahead.shift()
    this.index++
    return true
  }

  private isThere(): boolean {
    if (this.ahead.length > 0) return true
    const { done, value } = this.all.next()
    if (done) return false
    this.ahead.push(value)
    return true
  }

  private length(): number {
    if (this.size === null) {
      for (let next = this.all.next(); !next.done; next = this.all.next()) this.ahead.push(next.value)
      this.size = this.index + 1 + this.ahead.length
    }
    return this.size
  }

  private member(name: string, depth: number): unknown {
    switch (name) {
      case 'index':
        return BigInt(this.index + 1)
      case 'index0':
        return BigInt(this.index)
      case 'length':
        return BigInt(this.length())
      case 'revindex':
        return BigInt(this.length() - this.index)
      case 'revindex0':
        return BigInt(this.length() - this.index - 1)
      case 'first':
        return this.index === 0
      case 'last':
        return !this.isThere()
      case 'previtem':
        return this.index > 0 ? this.before : new Undefined('there is no item before')
      case 'nextitem':
        return this.isThere() ? this.ahead[0] : new Undefined('there is no item after')
      case 'depth':
        return BigInt(depth + 1)
      case 'depth0':
        return BigInt(depth)
      case 'cycle':
        return ((args) => {
          if (args.length === 0) throw new Error('cycle() has no items')
          return args[this.index % args.length]
        }) satisfies Callable
      case 'changed':
        return ((args) => {
          const isSame = this.changed !== null && equal(this.changed, [...args])
          this.changed = [...args]
          return !isSame
        }) satisfies Callable
      default:
        return undefined
    }
  }
}
