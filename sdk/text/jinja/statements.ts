import { callOf, callParts, constants, Expressions } from './expressions.ts'
import { Loop } from './loop.ts'
import { captured, type Expression, type Scope, type Statement } from './scope.ts'
import { TokenStream } from './token-stream.ts'
import { type Callable, Generator, iterate, Namespace, str, Tuple, truth, Undefined } from './values.ts'

// A template becomes functions: an expression gives a value, a statement adds to the output.

type Assign = (scope: Scope, value: unknown) => void

interface Parameter {
  readonly name: string
  readonly otherwise: Expression | null
}

/** Parses a template. Throws SyntaxError. */
export const compile = (source: string): Statement => new Statements(source).body([])

class Statements {
  private readonly tokens: TokenStream
  private readonly expressions: Expressions

  constructor(source: string) {
    this.tokens = new TokenStream(source)
    this.expressions = new Expressions(this.tokens)
  }

  /** Up to the name of a tag that is one of these; up to the end where there are none. */
  body(ends: readonly string[]): Statement {
    const parts: Statement[] = []
    for (;;) {
      const token = this.tokens.peek()
      if (!token) {
        if (ends.length > 0) this.tokens.fail(`'${ends.at(-1)}' is missing`)
        break
      }
      this.tokens.next()
      if (token.type === 'data') parts.push((_, out) => void out.push(token.text))
      else if (token.type === 'variable begin') {
        const value = this.expressions.tuple()
        this.tokens.expect('variable end')
        parts.push((scope, out) => {
          const written = str(value(scope))
          scope.limits.check(written)
          out.push(written)
          return undefined
        })
      } else {
        if (this.tokens.peek()?.type === 'name' && ends.includes(this.tokens.peek()!.text)) break
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
    this.tokens.expect('end')
  }

  /** A block up to its closing tag, which is read. */
  private block(end: string): Statement {
    this.end()
    const body = this.body([end])
    this.tokens.expect('name', end)
    this.end()
    return body
  }

  private statement(): Statement {
    const name = this.tokens.expect('name')
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
        const filter = this.expressions.filter((scope) => scope.get(' body'), true)
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
      case 'generation':
        // transformers' own: it marks what the assistant says.
        return this.block('endgeneration')
      case 'break':
      case 'continue':
        this.end()
        return () => name
      default:
        return this.tokens.fail(`the tag '${name}' is not supported`)
    }
  }

  private ifStatement(): Statement {
    const branches: { test: Expression; body: Statement }[] = []
    let otherwise: Statement | null = null
    const test = this.expressions.tuple(false)
    this.end()
    branches.push({ test, body: this.body(['elif', 'else', 'endif']) })
    for (;;) {
      if (this.tokens.keyword('elif')) {
        const test = this.expressions.tuple(false)
        this.end()
        branches.push({ test, body: this.body(['elif', 'else', 'endif']) })
      } else if (this.tokens.keyword('else')) {
        this.end()
        otherwise = this.body(['endif'])
      } else {
        this.tokens.expect('name', 'endif')
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
    this.tokens.expect('name', 'in')
    const items = this.expressions.tuple(false, ['recursive', 'if'])
    const test = this.tokens.keyword('if') ? this.expressions.expression() : null
    const isRecursive = this.tokens.keyword('recursive') !== undefined
    this.end()
    const body = this.body(['else', 'endfor'])
    let otherwise: Statement | null = null
    if (this.tokens.keyword('else')) {
      this.end()
      otherwise = this.body(['endfor'])
    }
    this.tokens.expect('name', 'endfor')
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
    if (this.tokens.operator('=')) {
      const value = this.expressions.tuple()
      this.end()
      return (scope) => void target(scope, value(scope))
    }
    const filter = this.tokens.is('operator', '|') ? this.expressions.filter((scope) => scope.get(' body')) : null
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
    while (!this.tokens.is('end')) {
      if (pairs.length > 0) this.tokens.expect('operator', ',')
      const target = this.target(['='])
      this.tokens.expect('operator', '=')
      pairs.push({ target, value: this.expressions.expression() })
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
  private parameters(): Parameter[] {
    const found: Parameter[] = []
    this.tokens.expect('operator', '(')
    while (!this.tokens.operator(')')) {
      if (found.length > 0) this.tokens.expect('operator', ',')
      const name = this.tokens.expect('name')
      const otherwise = this.tokens.operator('=') ? this.expressions.expression() : null
      if (!otherwise && found.at(-1)?.otherwise)
        this.tokens.fail('a parameter without a default follows one with a default')
      found.push({ name, otherwise })
    }
    return found
  }

  /** What makes a macro in the scope where it stands; `from`: where its parameters and body begin. */
  private macroOf(
    name: string,
    from: number,
    parameters: readonly Parameter[],
    body: Statement,
  ): (scope: Scope) => Callable {
    const takes = (extra: string) =>
      this.tokens.hasRead(extra, from) && !parameters.some((parameter) => parameter.name === extra)
    const [takesMore, takesNamed, takesCaller] = ['varargs', 'kwargs', 'caller'].map(takes)
    return (outer) => {
      const macro: Callable = (args, named) => {
        const scope = outer.inner()
        scope.limits.check(null)
        const rest = new Map(named)
        const missing: Parameter[] = []
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
    const name = this.tokens.expect('name')
    const from = this.tokens.position
    const macro = this.macroOf(name, from, this.parameters(), this.block('endmacro'))
    return (scope) => void scope.variables.set(name, macro(scope))
  }

  private callStatement(): Statement {
    const from = this.tokens.position
    const parameters = this.tokens.is('operator', '(') ? this.parameters() : []
    const called = callParts.get(this.expressions.expression()) ?? this.tokens.fail('a call block needs a call')
    const caller = this.macroOf('caller', from, parameters, this.block('endcall'))
    return (scope, out) => {
      const named = called.named(scope)
      named.set('caller', caller(scope))
      out.push(str(callOf(called.f(scope), called.args(scope), named, scope)))
      return undefined
    }
  }

  /** What is assigned to: a name, a member of a namespace, or several. */
  private target(ends: readonly string[], mayBeMember = false): Assign {
    const one = (): Assign => {
      if (this.tokens.operator('(')) {
        const inner = this.targets([')'])
        this.tokens.expect('operator', ')')
        return inner
      }
      const name = this.tokens.expect('name')
      if (constants.has(name)) this.tokens.fail(`'${name}' cannot be assigned to`)
      if (!mayBeMember || !this.tokens.operator('.')) return (scope, value) => void scope.variables.set(name, value)
      const key = this.tokens.expect('name')
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
    const isEnd = () =>
      ends.some((end) => this.tokens.is('operator', end) || this.tokens.is('name', end)) || this.tokens.is('end')
    do {
      if (isEnd()) break
      all.push(one())
      if (!this.tokens.is('operator', ',')) break
      isTuple = true
    } while (this.tokens.operator(','))
    if (all.length === 0) this.tokens.fail('a name is missing')
    if (!isTuple) return all[0]
    return (scope, value) => {
      const values = [...iterate(value)]
      if (values.length !== all.length) throw new Error(`${values.length} values for ${all.length} names`)
      for (const [i, assign] of all.entries()) assign(scope, values[i])
    }
  }
}
