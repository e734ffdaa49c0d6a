import { elementCount, type TensorType } from './dtype.ts'
import { ShapeError } from './errors.ts'
import { Graph, type Tensor } from './graph/graph.ts'
import { type Program, toProgram } from './graph/program.ts'
import type { CaseInput, OpCase, OpSpec } from './graph/spec.ts'
import { ops, scale } from './ops/index.ts'
import { rounded, toBytes, toFloats, toNumbers } from './quant/convert.ts'
import { nameCounter, normal } from './random.ts'
import type { Buffer, Target } from './target.ts'

// One op on one target against its own reference: what the tests run for every case, and what a target must pass for one case of
// each op before it is used.

/** Ops whose first case comes out wrong on a target, with what is wrong; empty when all is well. */
export async function selfTest(target: Target): Promise<string[]> {
  const wrong: string[] = []
  for (const spec of Object.values(ops)) {
    const [c] = spec.cases
    const filled = fillCase(spec, c)
    try {
      const problem = difference(
        await runCase(target, spec, c, filled),
        expectedOf(spec, c, filled),
        c.tolerance?.value,
      )
      if (problem !== null) wrong.push(`${spec.name}: ${problem}`)
    } catch (error) {
      wrong.push(`${spec.name}: ${(error as Error).message}`)
    }
  }
  return wrong
}

/** The bytes that every target gets for one argument, and the numbers that they stand for. */
export interface Filled {
  readonly bytes: Uint8Array
  readonly data: Float64Array
}

export function fillCase(spec: OpSpec, c: OpCase): Filled[] {
  const seed = nameCounter(`${spec.name}/${c.name}`)
  return c.inputs.map(({ type, fill }, input) => {
    const values = Float64Array.from({ length: elementCount(type.shape) }, (_, i) =>
      fill.kind === 'values' ? fill.values[i] : normal(seed, input, i) * (fill.scale ?? 1) + (fill.offset ?? 0),
    )
    const bytes = toBytes(values, type.dtype)
    return { bytes, data: toNumbers(bytes, type.dtype) }
  })
}

const stateInputs = (spec: OpSpec): Set<number> => new Set(spec.state?.map(([input]) => input))

const nameOf = (spec: OpSpec, input: CaseInput, i: number): string =>
  stateInputs(spec).has(i) ? `state${i}` : input.weight ? `weight${i}` : `input${i}`

/** Binds the arguments of a case; state and weights by name, the rest as inputs. */
export function bindCase(g: Graph, spec: OpSpec, c: OpCase): Tensor[] {
  return c.inputs.map((input, i) => {
    const name = nameOf(spec, input, i)
    if (stateInputs(spec).has(i)) return g.state(name, input.type)
    return input.weight ? g.weight(name, input.type, input.weight === 'trainable') : g.input(name, input.type)
  })
}

/**
 * The op alone, its outputs `output0`... (those that are not state). With `viaTemps` its inputs are temps that die at the op,
 * so that a target works in place where the op allows it.
 */
export function caseProgram(spec: OpSpec, c: OpCase, viaTemps = false): Program {
  const g = new Graph()
  const inputs = bindCase(g, spec, c).map((t) =>
    viaTemps && t.kind === 'input' && t.dtype === 'f32' ? scale(g, t, 1) : t,
  )
  g.apply(spec, inputs, c.attrs).forEach((t, i) => {
    if (t.kind !== 'state') g.output(`output${i}`, t)
  })
  return toProgram(g, `${spec.name}/${c.name}`)
}

/** What the op's own reference says, under the same keys as `runCase`. */
export function expectedOf(spec: OpSpec, c: OpCase, filled: readonly Filled[]): Record<string, Float64Array> {
  const outputs = spec.reference(
    c.inputs.map((input, i) => ({ shape: input.type.shape, data: filled[i].data })),
    c.attrs,
  )
  const stateOf = new Map(spec.state?.map(([input, output]) => [output, input]))
  return Object.fromEntries(
    outputs.map(({ data }, o) => {
      const i = stateOf.get(o)
      return i === undefined ? [`output${o}`, data] : [`state${i}`, rounded(data, c.inputs[i].type.dtype)]
    }),
  )
}

const guardType: TensorType = { dtype: 'i32', shape: [16] }
const guardBytes = new Uint8Array(64).fill(0xa5)

/**
 * Runs one case: its outputs, and its states after the run. Throws when a weight was written into, or a guard buffer that was
 * made after each weight and state.
 */
export async function runCase(
  target: Target,
  spec: OpSpec,
  c: OpCase,
  filled: readonly Filled[],
  viaTemps = false,
): Promise<Record<string, Float32Array | Int32Array>> {
  const bound: Record<string, Buffer> = {}
  const inputs: Record<string, ArrayBufferView> = {}
  const guards: Buffer[] = []
  for (const [i, input] of c.inputs.entries()) {
    const name = nameOf(spec, input, i)
    if (name.startsWith('input')) {
      inputs[name] = filled[i].bytes
      continue
    }
    bound[name] = target.create(input.type, name)
    guards.push(target.create(guardType, `guard after ${name}`))
    await target.write(bound[name], filled[i].bytes)
    await target.write(guards.at(-1)!, guardBytes)
  }
  const executable = await target.compile(caseProgram(spec, c, viaTemps), bound)
  const results = await executable.run(inputs)
  for (const [name, buffer] of Object.entries(bound)) {
    const after = await target.read(buffer)
    if (name.startsWith('state'))
      results[name] =
        buffer.type.dtype === 'i32' ? new Int32Array(after) : toFloats(new Uint8Array(after), buffer.type.dtype)
    else if (!sameBytes(new Uint8Array(after), filled[Number(name.slice(6))].bytes))
      throw new Error(`${spec.name}/${c.name}: ${name} was written into`)
  }
  for (const guard of guards)
    if (!sameBytes(new Uint8Array(await target.read(guard)), guardBytes))
      throw new Error(`${spec.name}/${c.name}: wrote past the end (${guard.name})`)
  executable.free()
  for (const buffer of [...Object.values(bound), ...guards]) target.free(buffer)
  return results
}

export const sameBytes = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((v, i) => v === b[i])

/** max|a - b| / max|b|; Infinity where one is not finite and they are not the same. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new ShapeError(`cannot compare ${a.length} elements with ${b.length}`)
  let difference = 0
  let largest = 0
  for (let i = 0; i < a.length; i++) {
    if (Object.is(a[i], b[i])) {
      if (Number.isFinite(b[i])) largest = Math.max(largest, Math.abs(b[i]))
      continue
    }
    if (!Number.isFinite(a[i]) || !Number.isFinite(b[i])) return Number.POSITIVE_INFINITY
    difference = Math.max(difference, Math.abs(a[i] - b[i]))
    largest = Math.max(largest, Math.abs(b[i]))
  }
  return difference / Math.max(largest, 1e-30)
}

/** Σ(a-b)² / Σb² */
export function normalizedError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let squares = 0
  let total = 0
  for (let i = 0; i < b.length; i++) {
    squares += (a[i] - b[i]) ** 2
    total += b[i] ** 2
  }
  return squares / Math.max(total, 1e-60)
}

/** null, or what differs: integers exactly; floats within `tolerance` of the largest, and its square as normalized error. */
export function difference(
  got: Record<string, ArrayLike<number>>,
  want: Record<string, Float64Array>,
  tolerance = 1e-5,
): string | null {
  const keys = Object.keys(want)
  if (Object.keys(got).sort().join() !== [...keys].sort().join())
    return `got ${Object.keys(got).join()}, expected ${keys.join()}`
  for (const key of keys) {
    if (got[key] instanceof Int32Array) {
      const at = want[key].findIndex((v, i) => v !== got[key][i])
      if (at >= 0 || got[key].length !== want[key].length)
        return `${key}[${at}] is ${got[key][at]}, not ${want[key][at]}`
      continue
    }
    const error = relativeError(got[key], want[key])
    if (!(error <= tolerance)) return `${key}: relative error ${error.toExponential(2)} > ${tolerance}`
    const squares = normalizedError(got[key], want[key])
    if (!(squares <= tolerance ** 2)) return `${key}: NMSE ${squares.toExponential(2)} > ${tolerance ** 2}`
  }
  return null
}
