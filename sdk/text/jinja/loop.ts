import { type Callable, equal, iterate, Undefined } from './values.ts'

/** The items of a for loop, and `loop` within it. */
export class Loop {
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
