import { storedTypes } from '../dtype.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import { packedHidden } from '../model/decoder.ts'
import type { Model } from '../model/model.ts'
import { embeddingName, headName } from '../model/names.ts'
import { Programs } from '../model/programs.ts'
import { gatherRows, view } from '../ops/index.ts'
import { linearBackWeight } from '../ops/linear-back.ts'
import { unitFactor } from '../quant/feedback.ts'

/** Windows that go through the model together. */
const windowsAtOnce = 2
/** Columns that are seen together at most: a table of second moments has their square. */
const widest = 1024

/** The factors (`unitFactor`) of what comes into the matrix of a name, of groups of its columns; null: it cannot be cut into such. */
export type InputFactors = (weight: string) => Promise<Float64Array[]> | null

/**
 * Runs windows of tokens, all of the same length, through a model, and adds up the second moments xᵀx of what comes into each of its linear
 * modules and its head. They stay on the device until the model is freed.
 */
export async function inputFactors(
  model: Model,
  windows: readonly (readonly number[])[],
  { onProgress, signal }: { onProgress?: (windows: number) => void; signal?: AbortSignal } = {},
): Promise<InputFactors> {
  const programs = new Programs(model)
  const groupsOf = new Map<string, Found>()
  for (let at = 0; at < windows.length; at += windowsAtOnce) {
    const own = windows.slice(at, at + windowsAtOnce)
    const [ids, length] = [Int32Array.from(own.flat()), own[0].length]
    const executable = await programs.get(`moments ${ids.length}`, (g) => build(g, model, ids.length, groupsOf))
    const inputs: Record<string, Int32Array> = {
      ids,
      positions: ids.map((_, i) => i % length),
      starts: ids.map((_, i) => i - (i % length)),
    }
    for (const { groups } of groupsOf.values())
      for (let group = 0; groups > 1 && group < groups; group++)
        inputs[partName(group, groups)] = ids.map((_, i) => i * groups + group)
    await executable.run(inputs, { signal })
    onProgress?.(at + own.length)
  }
  const factors = async ({ state, groups, damping }: Found) => {
    const found: Float64Array[] = []
    for (let i = 0; i < groups; i++) found.push(await unitFactor(await model.readFloats(`${state}/${i}`), damping))
    return found
  }
  /** Queries, keys and values have the same. */
  let last: { readonly state: string; readonly factors: Promise<Float64Array[]> } | undefined
  return (weight) => {
    const found = groupsOf.get(weight)
    if (!found) return null
    if (last?.state !== found.state) last = { state: found.state, factors: factors(found) }
    return last.factors
  }
}

/** Where the moments of an input are, and in how many groups. */
interface Found {
  readonly state: string
  readonly groups: number
  readonly damping: number
}

const partName = (group: number, groups: number): string => `part ${group} of ${groups}`

function build(g: Graph, model: Model, n: number, groupsOf: Map<string, Found>): void {
  const i32 = (name: string) => g.input(name, { dtype: 'i32', shape: [n] })
  const stateOf = new Map<Tensor, string>()
  const onInput = (x: Tensor, weight: string) => {
    const [, columns] = x.shape
    const groups = groupCount(columns)
    if (groups === null) return
    const isFirst = !stateOf.has(x)
    if (isFirst) stateOf.set(x, `moments/${weight}`)
    const state = stateOf.get(x)!
    // What is looked up in a table is not multiplied with anything.
    groupsOf.set(weight, { state, groups, damping: weight === embeddingName ? 1 : 0.1 })
    const width = columns / groups
    for (let group = 0; isFirst && group < groups; group++) {
      // [N, width]
      const part = groups === 1 ? x : gatherRows(g, view(g, x, [n * groups, width]), i32(partName(group, groups)))
      linearBackWeight(g, part, part, g.state(`${state}/${group}`, { dtype: 'f32', shape: [width, width] }))
    }
  }
  const hidden = packedHidden(g, { ...model.context(), onInput }, i32('ids'), i32('positions'), i32('starts'))
  onInput(hidden, headName(model.config))
}

/** Equal groups of whole blocks, as few as there may be. */
function groupCount(columns: number): number | null {
  const block = storedTypes.q4.elements
  for (let width = widest; width >= block; width -= block) if (columns % width === 0) return columns / width
  return null
}
