// What every target asks before it runs something: pure functions of the program and of what is given.
import { bytesOf } from '../sdk/bytes.ts'
import { byteLength, describe } from '../sdk/dtype.ts'
import { DeviceError, ShapeError } from '../sdk/errors.ts'
import { bindings, type Program, type ProgramTensor } from '../sdk/graph/program.ts'
import type { Buffer, RunInputs, RunOptions, RunOutputs, Target } from '../sdk/target.ts'

/** Throws DeviceError that names all ops of the program which the target does not have. */
export function checkOps(program: Program, supports: Target['supports']): void {
  const reasons = new Set<string>()
  for (const node of program.nodes) {
    const types = node.inputs.map((id) => program.tensors[id])
    const answer = supports(node.op, types, node.attrs)
    if (answer !== true) reasons.add(answer)
  }
  if (reasons.size > 0) throw new DeviceError(`program ${program.name}: ${[...reasons].join('; ')}`)
}

/** Throws ShapeError for a weight or state without a buffer, or with one of another type. */
export function checkBound(program: Program, bound: Readonly<Record<string, Buffer>>): void {
  for (const kind of ['weight', 'state'] as const)
    for (const [name, type] of bindings(program, kind)) {
      const buffer = bound[name]
      if (!buffer) throw new ShapeError(`program ${program.name}: no buffer bound for ${kind} ${name}`)
      if (describe(buffer.type) !== describe(type))
        throw new ShapeError(
          `program ${program.name}: ${kind} ${name} is ${describe(type)}, the bound buffer ${describe(buffer.type)}`,
        )
    }
}

/** Throws ShapeError for bytes outside of a buffer. */
export function checkRange(buffer: Buffer, byteOffset: number, bytes: number): void {
  if (!(byteOffset >= 0 && bytes >= 0 && byteOffset + bytes <= buffer.bytes))
    throw new ShapeError(`${buffer.name}: bytes ${byteOffset} to ${byteOffset + bytes} of ${buffer.bytes}`)
}

/** A run of a program, with tensors in place of names. */
export interface Job {
  readonly steps: number
  /** A copy of each input's bytes: of one step, or of all of them one after the other. */
  readonly inputs: readonly {
    readonly tensor: ProgramTensor
    readonly bytes: Uint8Array<ArrayBuffer>
    readonly isSliced: boolean
  }[]
  /** After each step but the last `from` is copied to `to`. */
  readonly carry: readonly { readonly from: ProgramTensor; readonly to: ProgramTensor }[]
  readonly collect: readonly { readonly name: string; readonly tensor: ProgramTensor }[]
  readonly signal: AbortSignal | undefined
}

/** The inputs of a program, by name. */
export const inputTensors = (program: Program): ReadonlyMap<string, ProgramTensor> =>
  new Map(program.tensors.filter((t) => t.kind === 'input').map((t) => [t.name, t]))

/** `wanted`: the program's inputs. Views are copied now: the caller may change them while the run waits for its turn. Throws ShapeError. */
export function jobOf(
  program: Program,
  wanted: ReadonlyMap<string, ProgramTensor>,
  inputs: RunInputs,
  options: RunOptions,
): Job {
  const { steps = 1, carry = {}, collect = Object.keys(program.outputs), signal } = options
  const fail = (what: string) => new ShapeError(`program ${program.name}: ${what}`)
  if (!Number.isInteger(steps) || steps < 1) throw fail(`steps is ${steps}, not a positive integer`)
  for (const name of Object.keys(inputs)) if (!wanted.has(name)) throw fail(`unknown input ${name}`)
  const given = [...wanted].map(([name, tensor]) => {
    const value = inputs[name]
    if (value === undefined) throw fail(`input ${name} ${describe(tensor)} is missing`)
    const isSliced = steps > 1 && value.byteLength === steps * byteLength(tensor)
    if (!isSliced && value.byteLength !== byteLength(tensor))
      throw fail(`input ${name} is ${describe(tensor)}, given ${value.byteLength} bytes`)
    return { tensor, bytes: bytesOf(value).slice(), isSliced }
  })
  const outputOf = (name: string): ProgramTensor => {
    if (!Object.hasOwn(program.outputs, name)) throw fail(`no output ${name}`)
    return program.tensors[program.outputs[name]]
  }
  const carried = Object.entries(carry).map(([name, output]) => {
    const [from, to] = [outputOf(output), wanted.get(name)]
    if (!to) throw fail(`unknown input ${name} to carry ${output} to`)
    if (describe(from) !== describe(to))
      throw fail(`output ${output} is ${describe(from)}, input ${name} ${describe(to)}`)
    if (given.find(({ tensor }) => tensor === to)!.isSliced)
      throw fail(`input ${name} is given for every step, and carried`)
    return { from, to }
  })
  return {
    steps,
    inputs: given,
    carry: carried,
    collect: collect.map((name) => ({ name, tensor: outputOf(name) })),
    signal,
  }
}

/** Bytes of the collected outputs as arrays of their types, by name. */
export const outputsOf = ({ collect }: Job, bytes: readonly ArrayBuffer[]): RunOutputs =>
  Object.fromEntries(
    collect.map(({ name, tensor }, i) => [
      name,
      tensor.dtype === 'i32' ? new Int32Array(bytes[i]) : new Float32Array(bytes[i]),
    ]),
  )
