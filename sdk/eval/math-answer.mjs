// What an answer is made of - lists, sets, intervals, tuples, matrices, relations, expressions with units - and whether two
// are the same. Expressions are read by the parser that is given: LaTeX to MathJSON, as it is written.
import { clean, isBalanced, nesting, splitTop, unwrap } from './math-latex.mjs'
import { exact, isSound, sample, valueAt, variables } from './math-value.mjs'

const mostNesting = 40
const mostItems = 200
const rounds = 5

/** Whether two answers are the same: {equal, reason}. */
export function sameMath(gold, answer, parse) {
  const [a, b] = [clean(gold), clean(answer)]
  if (a === '' || b === '') return { equal: false, reason: 'nothing to compare' }
  if (nesting(a) > mostNesting || nesting(b) > mostNesting) return { equal: false, reason: 'brackets too deep' }
  if (letters(a) === letters(b)) return { equal: true, reason: 'equal as written' }
  const reader = new Reader(parse)
  const equal = reader.same(reader.read(a), reader.read(b))
  return { equal, reason: equal ? 'equal in value' : (reader.doubt ?? 'not equal') }
}

/** Without fonts, spaces, and the brackets of (C). */
const letters = (s) =>
  s
    .replace(/\\text\{([^{}]*)\}/g, '$1')
    .replace(/\s+|\\ |\.$/g, '')
    .replace(/^[({]([A-Za-z]+)[)}]$/, '$1')
    .replace(/^[a-zA-Z]{2,}$/, (word) => word.toLowerCase())

const greek =
  'alpha|beta|gamma|delta|epsilon|varepsilon|theta|lambda|mu|nu|rho|sigma|tau|phi|varphi|psi|omega|Delta|Omega|Phi|ell|xi|eta|kappa'
const symbol = `(?:[a-zA-Z]|\\\\(?:${greek}))(?:_(?:\\{[^{}]*\\}|\\w))?'*`
const segment = `(?:\\|?(?:\\\\(?:angle|triangle|overline|vec|overrightarrow|overarc)(?:\\{[A-Za-z]+\\}|[A-Za-z]+)|[A-Z]{2,})\\|?)`
const name = `(?:${symbol}(?:(?:\\^\\{-1\\})?\\((?:${symbol}|\\d+)(?:,(?:${symbol}|\\d+))*\\))?|m?${segment}|\\|${symbol}\\||\\\\text\\{[^{}]*\\}(?:_\\w+)?|[A-Z][a-z]+)`
const namePattern = new RegExp(`^(?:${name}|\\\\frac\\{${segment}\\}\\{${segment}\\}|${segment}\\/${segment})$`)
const namesPattern = new RegExp(`^\\(${name}(?:,${name})+\\)$`)
const callPattern = new RegExp(`^(${symbol})\\(`)
const isName = (text) => namePattern.test(text) || namesPattern.test(text)

const relationCommands = ['\\approx', '\\equiv', '\\notin', '\\le', '\\ge', '\\ne', '\\in']
const flipped = { '<': '>', '>': '<', '\\le': '\\ge', '\\ge': '\\le' }

function relationAt(s, i) {
  if (s[i] === '=' || s[i] === '<' || s[i] === '>') return 1
  if (s[i] !== '\\') return 0
  const found = relationCommands.find(
    (command) => s.startsWith(command, i) && !/[a-z]/i.test(s[i + command.length] ?? ''),
  )
  return found?.length ?? 0
}

const commandAt = (commands) => (s, i) =>
  s[i] === '\\' ? (commands.find((c) => s.startsWith(c, i) && !/[a-z]/i.test(s[i + c.length] ?? ''))?.length ?? 0) : 0
const cupAt = commandAt(['\\cup', '\\bigcup'])
const minusAt = commandAt(['\\setminus', '\\backslash'])
const charAt = (char) => (s, i) => (s[i] === char ? 1 : 0)
const items = (parts) => parts.filter((_, i) => i % 2 === 0).map((part) => part.trim())

const units = new Map(
  Object.entries({
    length: {
      mm: 0.001,
      cm: 0.01,
      dm: 0.1,
      m: 1,
      meter: 1,
      metre: 1,
      centimeter: 0.01,
      millimeter: 0.001,
      km: 1000,
      kilometer: 1000,
    },
    imperial: { inch: 1, in: 1, inches: 1, foot: 12, feet: 12, ft: 12, yard: 36, yd: 36, mile: 63360, mi: 63360 },
    mass: { mg: 0.001, g: 1, gram: 1, kg: 1000, kilogram: 1000 },
    time: { s: 1, sec: 1, second: 1, min: 60, minute: 60, h: 3600, hr: 3600, hour: 3600, day: 86400 },
    volume: { ml: 0.001, milliliter: 0.001, l: 1, liter: 1, litre: 1 },
    money: { dollar: 1, cent: 0.01 },
  }).flatMap(([kind, all]) => Object.entries(all).map(([unit, factor]) => [unit, { kind, factor }])),
)

/** Of "square centimeters" or "cm^2": its kind with the power, and what one is worth; null for other words. */
function unitOf(words) {
  const text = words.toLowerCase().replace(/[.{}]/g, '').trim()
  const match = /^(square|cubic|sq)? ?([a-z]+?)(?:\^?([23]))?$/.exec(text)
  if (!match) return null
  const unit = units.get(match[2]) ?? units.get(match[2].replace(/s$/, ''))
  if (!unit) return null
  const power = match[1] === 'cubic' ? 3 : match[1] ? 2 : Number(match[3] ?? 1)
  return { kind: `${unit.kind}${power}`, factor: unit.factor ** power }
}

/** [all, value, words, power] of "5 apples", "5cm^2"; not of 6abc. */
function plainUnit(s) {
  const match = /^([-+\d.,\s]*\d\s*|.*\}\s*)(?<![a-zA-Z\\])([a-z]+(?: [a-z]+)*)((?:\^\{?[23]\}?)?)$/.exec(s)
  if (!match) return null
  const [, value, words, power] = match
  const isWord = /^(?:[a-z]{4,}|[b-df-hj-np-tv-z][aeiouy][a-z])(?: [a-z]+)*$/.test(words) && /[aeiou]/.test(words)
  const isUnit = unitOf(words + power) !== null && (words.length > 1 || /\d$/.test(value.trim()))
  return (isWord && /\s$/.test(value)) || (isUnit && words !== 's' && words !== 'h') ? match : null
}

class Reader {
  #parse
  #read = 0
  /** Why something could not be decided. */
  doubt
  constructor(parse) {
    this.#parse = parse
  }

  read(text) {
    const s = text.trim().replace(/^[.,;:\s]+|[.,;:\s]+$/g, '')
    if (++this.#read > mostItems) throw new Error('too many parts')
    if (/^[-+]?\d+,\d+$/.test(s)) {
      const both = s.split(',').map((part) => this.#expression(part))
      return { kind: 'either', options: [{ kind: 'list', items: both }, this.#expression(s.replace(',', '.'))] }
    }
    for (const separator of [';', ',']) {
      const parts = items(splitTop(s, charAt(separator))).filter((part) => part !== '')
      if (parts.length > 1) return { kind: 'list', items: parts.map((part) => this.read(part)) }
    }
    const sides = splitTop(s, relationAt)
    if (sides.length > 1 && sides.every((side, i) => i % 2 === 1 || side.trim() !== '')) return this.#relation(sides)
    return this.#set(sides.length > 1 ? (items(sides).find((side) => side !== '') ?? s) : s)
  }

  #relation(parts) {
    const texts = items(parts)
    const ops = parts.filter((_, i) => i % 2 === 1)
    return {
      kind: 'relation',
      ops,
      texts: texts.map((t) => t.replace(/\s+/g, '')),
      sides: texts.map((t) => this.#set(t)),
    }
  }

  #set(s) {
    const parts = items(splitTop(s, cupAt))
    if (parts.length > 1) return { kind: 'union', items: parts.map((part) => this.read(part)) }
    const without = items(splitTop(s, minusAt))
    if (without.length > 1) return { kind: 'minus', items: without.map((part) => this.read(part)) }
    const wrapped = unwrap(s)
    if (wrapped) return this.#wrapped(wrapped, s)
    const matrices = matrixFactors(s)
    if (matrices) return this.#matrix(matrices)
    const signs = splitTop(s, commandAt(['\\pm', '\\mp']))
    if (signs.length === 3 || /\\(?:pm|mp)(?![a-z])/.test(s)) return this.#plusMinus(s)
    const ratio = items(splitTop(s, charAt(':')))
    if (ratio.length === 2 && ratio.every((part) => part !== ''))
      return this.#expression(`\\frac{${ratio[0]}}{${ratio[1]}}`)
    if (ratio.length > 2) return { kind: 'seq', open: ':', close: ':', items: ratio.map((part) => this.read(part)) }
    return this.#expression(s)
  }

  #plusMinus(s) {
    const choose = (plus, minus) =>
      s
        .replace(/\\pm(?![a-z])/g, plus)
        .replace(/\\mp(?![a-z])/g, minus)
        .replace(/^\s*\+/, '')
    return { kind: 'list', items: [this.read(choose('+', '-')), this.read(choose('-', '+'))] }
  }

  #wrapped([open, content, close], s) {
    if (open === '{') return this.read(content)
    if (open === '\\{') {
      const [variable, condition, ...more] = items(splitTop(content, (t, i) => (t[i] === '|' || t[i] === ':' ? 1 : 0)))
      if (condition && more.length === 0 && /^[a-z](?: *\\in.*)?$/.test(variable)) return this.read(condition)
      if (content.trim() === '') return this.#expression('\\emptyset')
      const inner = this.read(content)
      if (inner.kind === 'either') return inner.options[0]
      return inner.kind === 'list' ? inner : { kind: 'list', items: [inner] }
    }
    for (const separator of [';', ',']) {
      const parts = items(splitTop(content, charAt(separator)))
      if (parts.length < 2) continue
      const [left, right] = [open === ']' ? '(' : open, close === '[' ? ')' : close]
      return { kind: 'seq', open: left, close: right, items: parts.map((part) => this.read(part)) }
    }
    if (open === '(' && close === ')') return this.read(content)
    if (open === '[' && close === ']') return this.read(content)
    return this.#expression(s)
  }

  #distinct(list) {
    const kept = []
    for (const item of list) if (!kept.some((other) => this.same(other, item))) kept.push(item)
    return kept
  }

  /** The product of matrices, and numbers before them. */
  #matrix({ factors, scalar }) {
    const read = factors.map((rows) => rows.map((row) => row.map((cell) => cell.trim() || '0')))
    let product = read[0]
    for (const factor of read.slice(1)) {
      if (product[0].length !== factor.length || product.length * factor.length > 64)
        return this.#expression('\\emptyset')
      product = product.map((row) =>
        factor[0].map((_, j) => row.map((cell, k) => `(${cell})(${factor[k][j]})`).join('+')),
      )
    }
    const scaled = scalar === '' ? product : product.map((row) => row.map((cell) => `(${scalar})(${cell})`))
    const rows = scaled.map((row) => row.map((cell) => this.#expression(cell)))
    return { kind: 'matrix', rows }
  }

  /** One value with its unit. */
  #expression(text) {
    let s = text.trim()
    const node = { kind: 'expression', text: s, percent: false, degrees: false, unit: null }
    if (/^\\text\{[^{}]*\}$/.test(s) || /^[a-zA-Z][a-zA-Z ]{3,}$/.test(s)) return { ...node, kind: 'text' }
    const unit = /^(.*\S)\s*\\text\{([^{}]*)\}((?:\^\{?\d\}?)?)$/.exec(s) ?? plainUnit(s)
    if (unit) {
      s = unit[1].trim()
      const before = /^(.*\S)\s*\\text\{([^{}]*)\}$/.exec(s)
      if (before) s = before[1]
      node.unit = unitOf(unit[2] + unit[3])
    }
    s = s.replace(/^\\text\{[^{}]*\}\s*(?=[-\d\\(])/, '')
    if (/\\%$/.test(s)) {
      node.percent = true
      s = s.slice(0, -2).trim()
    }
    const degrees = /^(.*\S)\s*\^\s*(?:\\circ|\{\\circ\})\s*(?:[CF]|\\text\{[CF]\})?$/.exec(s)
    if (degrees && !/\\(?:sin|cos|tan|cot)/.test(s)) {
      node.degrees = true
      s = degrees[1]
    }
    s = s.replace(/^\+/, '').replace(/\\%/g, '\\cdot 0.01 ')
    node.text = s
    // The parser writes powers of ten out.
    if (/(?:\d[eE]|10 ?\^ ?\{?) ?[-+]?\d{4}/.test(s)) this.doubt = 'not equal as written, and too large'
    // The parser tries for long where a bracket is missing.
    else if (isBalanced(s) && s.split('|').length % 2 === 1) node.json = this.#parse(named(s))
    return node
  }

  same(a, b) {
    if (a.kind === 'either') return a.options.some((option) => this.same(option, b))
    if (b.kind === 'either') return b.options.some((option) => this.same(a, option))
    if (a.kind === 'relation' && b.kind === 'relation') return this.#sameRelation(a, b)
    if (a.kind === 'relation') return this.#sameAsRelation(a, b)
    if (b.kind === 'relation') return this.#sameAsRelation(b, a)
    if (a.kind === 'expression' && b.kind === 'expression') return this.#sameExpression(a, b)
    if (a.kind === 'text' || b.kind === 'text')
      return a.text !== undefined && b.text !== undefined && letters(a.text) === letters(b.text)
    if (a.kind === 'list' && b.kind === 'list') return this.#sameList(a, b)
    if (a.kind === 'seq' && b.kind === 'seq') return this.#sameSequence(a, b)
    if (a.kind === 'matrix' && b.kind === 'matrix') return this.#sameMatrix(a, b)
    if (a.kind === 'union' && b.kind === 'union') return this.#matches(a.items, b.items)
    if (a.kind === 'minus' && b.kind === 'minus') return this.#inOrder(a.items, b.items)
    if (a.kind === 'union' && b.kind === 'list') return this.#matches(a.items, b.items)
    if (a.kind === 'list' && b.kind === 'union') return this.#matches(a.items, b.items)
    const [list, other] = a.kind === 'list' ? [a, b] : [b, a]
    if (list.kind === 'list' && list.items.length === 1) return this.same(list.items[0], other)
    if (list.kind === 'list' && other.kind === 'seq' && /^(?:\(\)|\[\])$/.test(other.open + other.close))
      return this.#inOrder(list.items, other.items)
    const [matrix, vector] = a.kind === 'matrix' ? [a, b] : [b, a]
    if (matrix.kind === 'matrix') {
      const cells = matrix.rows.flat()
      const isVector = matrix.rows.length === 1 || matrix.rows.every((row) => row.length === 1)
      return isVector && vector.items !== undefined && vector.kind !== 'union' && this.#inOrder(cells, vector.items)
    }
    return false
  }

  #inOrder = (a, b) => a.length === b.length && a.every((item, i) => this.same(item, b[i]))

  /** Each of one is one of the other. */
  #matches(a, b) {
    if (a.length !== b.length) return false
    const left = [...b]
    return a.every((item) => {
      const at = left.findIndex((other) => this.same(item, other))
      if (at >= 0) left.splice(at, 1)
      return at >= 0
    })
  }

  #sameList(a, b) {
    const isNamed = (list) => list.items.every((item) => item.kind === 'relation')
    if (isNamed(a) && isNamed(b)) return this.#matches(a.items, b.items)
    return this.#matches(this.#distinct(a.items), this.#distinct(b.items))
  }

  #sameSequence(a, b) {
    if (a.items.length !== b.items.length) return false
    const isInfinite = (node) => node.kind === 'expression' && /\\infty$/.test(node.text)
    if (a.items.length === 2) {
      if (a.open !== b.open && !isInfinite(a.items[0])) return false
      if (a.close !== b.close && !isInfinite(a.items[1])) return false
    }
    return this.#inOrder(a.items, b.items)
  }

  #sameMatrix(a, b) {
    return a.rows.length === b.rows.length && a.rows.every((row, i) => this.#inOrder(row, b.rows[i]))
  }

  /** What a relation says its name is: {name, value, about}; null for other relations. */
  #assigned({ ops, texts, sides }) {
    if (!ops.every((op) => op === '=' || op === '\\approx' || op === '\\equiv')) return null
    const first = sides[0]
    const named = isName(texts[0])
    const constant = first.kind === 'expression' && isSound(first.json) && variables(first.json).size === 0
    if (!named && !constant && ops.length < 2) return null
    if (!named && !constant && first.kind === 'expression' && ops.every((op) => op === '='))
      return this.#lastOf(texts, sides)
    const about = ops.indexOf('\\approx')
    const value = about > 0 ? sides[about] : sides.at(-1)
    return { name: named ? texts[0] : null, value, about: about > 0 ? sides[about + 1] : null }
  }

  /** Of a chain that ends with a number, that number. */
  #lastOf(texts, sides) {
    const end = sides.at(-1)
    if (end.kind !== 'expression' || variables(end.json).size > 0 || texts.length < 3) return null
    return { name: null, value: end, about: null }
  }

  #sameAsRelation(relation, other) {
    const assigned = this.#assigned(relation)
    if (assigned) {
      if (
        other.kind === 'list' &&
        other.items.some((item) => item.kind === 'relation') &&
        namesPattern.test(assigned.name)
      )
        return this.#sameNames(assigned, other)
      if (this.same(assigned.value, other)) return true
      return assigned.about !== null && isAbout(assigned.value, assigned.about) && this.same(assigned.about, other)
    }
    const set = this.#asSet(relation)
    if (!set) return false
    if (other.kind === 'list' && set.kind === 'union' && other.items.every((item) => item.kind === 'relation'))
      return this.#matches(set.items, other.items)
    return this.same(set, other)
  }

  /** (x, y) = (1, 2) and x = 1, y = 2. */
  #sameNames({ name, value }, list) {
    const texts = name.slice(1, -1).split(',')
    if (value.kind !== 'seq' || value.items.length !== texts.length) return false
    const each = value.items.map((item, i) => ({
      kind: 'relation',
      ops: ['='],
      texts: [texts[i], item.text ?? ''],
      sides: [this.#expression(texts[i]), item],
    }))
    return this.#matches(each, list.items)
  }

  /** The numbers for which an inequality holds, as an interval or a union of two. */
  #asSet({ ops, texts, sides }) {
    const infinity = (sign) => ({
      kind: 'expression',
      text: `${sign}\\infty`,
      json: sign ? ['Negate', 'PositiveInfinity'] : 'PositiveInfinity',
    })
    const seq = (open, from, to, close) => ({ kind: 'seq', open, close, items: [from, to] })
    const above = (from, op) => seq(op === '>' ? '(' : '[', from, infinity(''), ')')
    const below = (to, op) => seq('(', infinity('-'), to, op === '<' ? ')' : ']')
    if (ops.length === 1) {
      let [op, value] = [ops[0], sides[1]]
      if (op === '\\in' && isName(texts[0])) return sides[1]
      if (!isName(texts[0])) {
        if (!isName(texts[1])) return null
        ;[op, value] = [flipped[op] ?? op, sides[0]]
      }
      if (op === '>' || op === '\\ge') return above(value, op)
      if (op === '<' || op === '\\le') return below(value, op)
      return op === '\\ne' ? { kind: 'union', items: [below(value, '<'), above(value, '>')] } : null
    }
    if (ops.length !== 2 || !isName(texts[1])) return null
    const isUp = ops.every((op) => op === '<' || op === '\\le')
    if (!isUp && !ops.every((op) => op === '>' || op === '\\ge')) return null
    const [low, high] = isUp ? [0, 1] : [1, 0]
    const strict = (op) => op === '<' || op === '>'
    return seq(strict(ops[low]) ? '(' : '[', sides[isUp ? 0 : 2], sides[isUp ? 2 : 0], strict(ops[high]) ? ')' : ']')
  }

  #sameRelation(a, b) {
    const pairwise = (x, y) => x.ops.join() === y.ops.join() && this.#inOrder(x.sides, y.sides)
    const reversed = {
      ...b,
      ops: b.ops.map((op) => flipped[op] ?? op).reverse(),
      texts: [...b.texts].reverse(),
      sides: [...b.sides].reverse(),
    }
    if (!b.ops.some((op) => op === '\\in' || op === '\\notin') && pairwise(a, reversed)) return true
    if (pairwise(a, b)) return true
    const [x, y] = [this.#assigned(a), this.#assigned(b)]
    if (x && y) {
      if (x.name === null || y.name === null || sameName(x.name, y.name)) return this.same(x.value, y.value)
    }
    if (a.ops.length === 1 && b.ops.length === 1) {
      if (this.#proportional(a, b)) return true
      if (a.ops[0] === b.ops[0] && a.ops[0] !== '\\in') return false
    }
    const [s, t] = [this.#asSet(a), this.#asSet(b)]
    return s !== null && t !== null && this.#variableOf(a) === this.#variableOf(b) && this.same(s, t)
  }

  #variableOf = ({ texts, ops }) => texts.find((text, i) => isName(text) && (ops.length === 1 || i === 1))

  /** The same equation or inequality up to a factor. */
  #proportional(a, b) {
    const kinds = [...a.sides, ...b.sides].every(({ kind, json }) => kind === 'expression' && isSound(json))
    if (!kinds) return false
    const [op, other] = [a.ops[0], b.ops[0]]
    let ratio = null
    for (let round = 0; round < rounds; round++) {
      const variable = (name) => sample(name, round)
      const [p, q] = [a, b].map(({ sides }) => {
        const [left, right] = sides.map(({ json }) => valueAt(json, variable))
        return left && right ? [left[0] - right[0], left[1] - right[1]] : null
      })
      if (!p || !q || p[1] !== 0 || q[1] !== 0 || q[0] === 0) return false
      const here = p[0] / q[0]
      if (!Number.isFinite(here) || here === 0) return false
      if (ratio === null) ratio = here
      else if (Math.abs(here - ratio) > 1e-9 * Math.abs(ratio)) return false
    }
    if (op === other && (op === '=' || op === '\\ne')) return true
    return ratio > 0 ? op === other : flipped[op] === other
  }

  #sameExpression(a, b) {
    if (a.unit && b.unit) {
      if (a.unit.kind !== b.unit.kind) return false
      if (a.unit.factor !== b.unit.factor) return this.#sameValue(scaled(a, a.unit.factor), scaled(b, b.unit.factor))
    }
    if (this.#sameValue(a, b)) return true
    if (a.percent !== b.percent) {
      const [percent, plain] = a.percent ? [a, b] : [b, a]
      return this.#sameValue({ ...percent, json: ['Divide', percent.json, 100] }, plain)
    }
    if (a.degrees !== b.degrees) {
      const [degrees, plain] = a.degrees ? [a, b] : [b, a]
      return this.#sameValue({ ...degrees, json: ['Degrees', degrees.json] }, plain)
    }
    return false
  }

  #sameValue(a, b) {
    if (a.json === undefined || b.json === undefined) return false
    if (JSON.stringify(a.json) === JSON.stringify(b.json)) return true
    if (!isSound(a.json) || !isSound(b.json)) {
      this.doubt = 'not equal as written, and not read as mathematics'
      return false
    }
    const [p, q] = [exact(a.json), exact(b.json)]
    if (p && q && p[0] === q[0] && p[1] === q[1]) return true
    if (p && q && !isRounded(a, b)) return false
    const names = new Set([...variables(a.json), ...variables(b.json)])
    for (let round = 0; round < (names.size === 0 ? 1 : rounds); round++) {
      const variable = (name) => sample(name, round)
      const [x, y] = [valueAt(a.json, variable), valueAt(b.json, variable)]
      if (!x || !y) {
        this.doubt = 'not equal as written, and not decided'
        return false
      }
      if (![...x, ...y].every(Number.isFinite)) {
        this.doubt = 'not equal as written, and too large or not defined'
        return false
      }
      if (!isNear(x, y)) return names.size === 0 && isRounded(a, b) && isRoundingOf(a, b, x, y)
    }
    return true
  }
}

const scaled = (node, factor) => ({ ...node, json: ['Multiply', node.json, factor] })

const isNear = (x, y) => {
  const size = Math.max(Math.hypot(...x), Math.hypot(...y))
  return Math.hypot(x[0] - y[0], x[1] - y[1]) <= Math.max(1e-9 * size, 1e-13)
}

/** f(n) and f(x); y and f(x) too. */
function sameName(a, b) {
  if (a === b) return true
  const [f, g] = [callPattern.exec(a)?.[1], callPattern.exec(b)?.[1]]
  if (f && g) return f === g
  if (f || g) return (f ? b : a) === 'y' || (f ?? g) === (f ? b : a)
  return /^\\text/.test(a) || /^\\text/.test(b) || plainName(a) === plainName(b)
}

const plainName = (name) => name.replace(/[{}|\s]/g, '')

const decimalPattern = /^-?\d*\.(\d+)$/
/** A decimal number beside what is none. */
const isRounded = (a, b) => decimalPattern.test(a.text) !== decimalPattern.test(b.text)

/** With at least five digits or six places, and right to half of the last. */
function isRoundingOf(a, b, [x], [y]) {
  const text = decimalPattern.test(a.text) ? a.text : b.text
  const places = decimalPattern.exec(text)[1].length
  const digits = text.replace(/^-?0*\.?0*|\./g, '').length
  return (digits >= 5 || places >= 6) && digits >= 3 && Math.abs(x - y) <= 0.5001 * 10 ** -places
}

/** 1/3 is about 0.33. */
function isAbout(value, about) {
  if (value.kind !== 'expression' || about.kind !== 'expression') return false
  const [x, y] = [value, about].map(({ json }) => valueAt(json, () => NaN))
  return Boolean(x && y && Math.abs(x[0] - y[0]) <= 0.01 * Math.abs(x[0]))
}

/** x_1 and a_{12} are names as a whole, which the parser takes for places in a list. */
function named(s) {
  const pattern = new RegExp(`(\\\\(?:${greek})|(?<![\\\\a-zA-Z])[a-zA-Z])_(?:\\{([^{}]{1,20})\\}|(\\w))`, 'g')
  return s.replace(
    pattern,
    (_, base, long, short) => `\\mathrm{${base.replace('\\', '')}S${(long ?? short).replace(/\W/g, '')}}`,
  )
}

const matrixPattern =
  /\\begin\{(?:[bpvBV]?matrix|smallmatrix|array)\}(?:\{[lcr|]*\})?([\s\S]*?)\\end\{(?:[bpvBV]?matrix|smallmatrix|array)\}/g

/** The matrices of a product, as rows of texts, and what stands before them; null where it is none. */
function matrixFactors(s) {
  const found = [...s.matchAll(matrixPattern)]
  if (found.length === 0 || found.length > 4) return null
  const between = s
    .slice(found[0].index)
    .replace(matrixPattern, '')
    .replace(/\\(?:cdot|times)(?![a-z])|\s/g, '')
  if (between !== '') return null
  const scalar = s
    .slice(0, found[0].index)
    .replace(/\\(?:cdot|times)\s*$/, '')
    .trim()
  const factors = found.map(([, body]) =>
    body
      .split(/\\\\(?:\[[^\]]*\])?/)
      .map((row) => row.split('&'))
      .filter((row) => row.some((cell) => cell.trim() !== '')),
  )
  if (factors.some((rows) => rows.length === 0 || rows.some((row) => row.length !== rows[0].length))) return null
  return { factors, scalar: scalar === '-' ? '-1' : scalar }
}
