import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { elementCount } from '../../sdk/dtype.ts'
import { decodeFloats, openSafetensors } from '../../sdk/formats/safetensors.ts'
import { Graph, gradientName } from '../../sdk/graph/graph.ts'
import { toProgram } from '../../sdk/graph/program.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { type DecoderContext, headWeight, packedHidden } from '../../sdk/model/decoder.ts'
import { ropeTable } from '../../sdk/model/rope.ts'
import { fill, gatherRows, gradient } from '../../sdk/ops/index.ts'
import { storeAt } from '../../sdk/store/store.ts'
import { opened } from '../../sdk/store/text.ts'
import { distillation, type Objective, pickFrom, policy } from '../../sdk/train/objectives.ts'
import { runReference } from '../../targets/reference/index.ts'

// GRPO and distillation of a golden model with its LoRA adapter, in f64: losses, gradient norms and gradients of PyTorch.
const root = process.env.HALFLING_GOLDEN ?? '../shared/golden'
const folders = existsSync(root)
  ? readdirSync(root)
      .map((name) => join(root, name))
      .filter((folder) => existsSync(join(folder, 'train')) && existsSync(join(folder, 'model.safetensors')))
  : []

if (folders.length === 0) it.skip(`golden objectives: none in ${root}`)

type Arrays = Record<string, Float64Array>
interface Lora {
  readonly r: number
  readonly alpha: number
}
const readJson = (path: string) => JSON.parse(readFileSync(path, 'utf8'))

async function readTensors(path: string): Promise<Map<string, { shape: readonly number[]; data: Float64Array }>> {
  const file = await openSafetensors(await opened(await storeAt(path), ''))
  const all = new Map<string, { shape: readonly number[]; data: Float64Array }>()
  for (const [name, t] of file.tensors)
    all.set(name, { shape: t.shape, data: Float64Array.from(decodeFloats(t.dtype, await t.read())) })
  return all
}

/** `base_model.model.<path>.lora_A.weight` -> `adapter/0/<path>.lora_A` */
const bufferName = (key: string) => key.replace(/^base_model\.model\./, 'adapter/0/').replace(/\.weight$/, '')

/** The model with its adapter, ready to run objectives over all scored rows of the packed sequences. */
async function load(
  folder: string,
  adapterFile: string,
  lora: Lora,
  ids: number[][],
  scored: [row: number, at: number][],
) {
  const config = parseConfig(readJson(join(folder, 'config.json')), folder)
  const length = ids[0].length
  const bound: Arrays = {}
  const types = new Map<string, { dtype: 'f32'; shape: readonly number[] }>()
  for (const [name, { shape, data }] of await readTensors(join(folder, 'model.safetensors'))) {
    types.set(name, { dtype: 'f32', shape })
    bound[name] = data
  }
  const table = { dtype: 'f32', shape: [length, config.headDim] } as const
  bound.rope = Float64Array.from(ropeTable(config.layers[0].rope!, table))
  const modules = new Map<string, { rank: number; dora: boolean }>()
  for (const [key, { data }] of await readTensors(join(folder, 'train', adapterFile))) {
    bound[bufferName(key)] = data
    const path = /^adapter\/0\/(.*)\.lora_A$/.exec(bufferName(key))?.[1]
    if (!path) continue
    modules.set(path, { rank: lora.r, dora: false })
    bound[`adapter/0/${path}.scale`] = Float64Array.of(lora.alpha / lora.r)
  }
  const context: DecoderContext = {
    config,
    weights: types,
    trainable: new Set(),
    adapters: [{ prefix: 'adapter/0', count: 1, modules, saved: [], frozen: [], trainable: true }],
    ropeTable: () => ({ name: 'rope', type: table }),
  }
  const fixed: Arrays = {
    ids: Float64Array.from(ids.flat()),
    positions: Float64Array.from(ids.flat(), (_, i) => i % length),
    starts: Float64Array.from(ids.flat(), (_, i) => i - (i % length)),
    rows: Float64Array.from(scored, ([row, at]) => row * length + at),
  }

  /** Loss, outputs and the adapter's gradients. */
  return (inputs: Arrays, objective: Objective) => {
    const g = new Graph()
    const input = (name: string, shape: number[]) => g.input(name, { dtype: 'i32', shape })
    const n = fixed.ids.length
    const hidden = packedHidden(g, context, input('ids', [n]), input('positions', [n]), input('starts', [n]))
    const rows = gatherRows(g, hidden, input('rows', [scored.length]))
    const outputs = objective(g, scored.length, pickFrom(g, rows, headWeight(g, context)))
    gradient(g, [[outputs.loss, fill(g, [1], 1)]])
    for (const [name, t] of Object.entries(outputs)) g.output(name, t)
    const p = toProgram(g, 'objective')
    const memory = { ...bound }
    for (const t of p.tensors) if (t.kind === 'state') memory[t.name] ??= new Float64Array(elementCount(t.shape))
    const results = runReference(p, { temperature: Float64Array.of(1), ...fixed, ...inputs }, memory)
    let squares = 0
    for (const [name, data] of Object.entries(memory))
      if (name.startsWith('grad/')) squares += data.reduce((sum, v) => sum + v * v, 0)
    return { results, gradNorm: Math.sqrt(squares), memory }
  }
}

async function expectGradients(path: string, memory: Arrays): Promise<void> {
  for (const [key, { data }] of await readTensors(path)) {
    const got = memory[gradientName(bufferName(key))]
    const size = data.reduce((a, b) => Math.max(a, Math.abs(b)), 0)
    const error = data.reduce((a, v, i) => Math.max(a, Math.abs(v - got[i])), 0)
    expect(error / size, key).toBeLessThan(1e-4)
  }
}

const near = (got: number, want: number, tolerance = 1e-5) =>
  expect(Math.abs(got - want) / Math.abs(want), `${got}, expected ${want}`).toBeLessThan(tolerance)

for (const folder of folders)
  describe.skipIf(!existsSync(join(folder, 'train/grpo.json')))(`golden GRPO, ${folder}`, async () => {
    const d = existsSync(join(folder, 'train/grpo.json')) ? readJson(join(folder, 'train/grpo.json')) : { ids: [] }
    const lengths: number[] = d.completion_mask?.map((m: number[]) => m.reduce((a, b) => a + b)) ?? []
    const scored: [number, number][] = d.ids.flatMap((_: unknown, b: number) =>
      d.completion_mask[b].flatMap((m: number, t: number) => (m ? [[b, t]] : [])),
    )
    const rows = (of: (b: number, t: number) => number) => Float64Array.from(scored, ([b, t]) => of(b, t))
    const run = d.lora && (await load(folder, 'grpo.adapter.safetensors', d.lora, d.ids, scored))
    const total = scored.length

    // biome-ignore lint/suspicious/noExplicitAny: the golden file's layout is its own
    const runCase = (c: any) => {
      const parts: number[][] = c.parts ?? [d.ids.map((_: unknown, b: number) => b)]
      const weight = (b: number) => {
        const part = parts.find((p) => p.includes(b))!
        if (c.loss_type === 'dapo') return 1 / total
        if (c.loss_type === 'bnpo') return 1 / part.reduce((sum, i) => sum + lengths[i], 0) / parts.length
        return 1 / (c.loss_type === 'grpo' ? lengths[b] : d.max_completion_length) / part.length / parts.length
      }
      const bySequence = c.importance_sampling_level === 'sequence'
      return run(
        {
          targets: rows((b, t) => d.ids[b][t + 1]),
          oldLogProbs: rows((b, t) => d.old_logp[b][t]),
          refLogProbs: rows((b, t) => d.ref_logp[b][t]),
          advantages: rows((b) => d.advantages[c.scale_rewards][b]),
          weights: rows(weight),
          ...(bySequence && { segments: rows((b) => b), shares: rows((b) => 1 / lengths[b]) }),
        },
        policy({
          ...{ old: true, ref: true, sequences: bySequence ? d.ids.length : null },
          ...{ epsLow: c.eps_low, epsHigh: c.eps_high, beta: c.beta },
        }),
      )
    }
    const mean = (values: ArrayLike<number>) => Array.from(values).reduce((a, b) => a + b, 0) / values.length

    for (const c of [...(d.cases ?? []), ...(d.micro_batches ?? []), ...(d.sequence_level ?? [])]) {
      const name = [
        c.loss_type,
        c.beta,
        c.eps_high,
        c.scale_rewards,
        c.importance_sampling_level ?? '',
        c.parts ? 'two parts' : '',
      ]
      it(name.filter((part) => part !== '').join(', '), async () => {
        const { results, gradNorm, memory } = runCase(c)
        near(results.loss[0], c.loss)
        near(gradNorm, c.grad_norm)
        if (c.mean_kl !== undefined) near(mean(results.kl), c.mean_kl)
        if (c.mean_entropy !== undefined) near(mean(results.entropy), c.mean_entropy)
        if (c.clip_frac !== undefined) {
          const advantages = scored.map(([b]) => d.advantages[c.scale_rewards][b])
          const clipped = advantages.map((a, i) =>
            (a < 0 && results.ratio[i] < 1 - c.eps_low) || (a > 0 && results.ratio[i] > 1 + c.eps_high) ? 1 : 0,
          )
          expect(mean(clipped)).toBeCloseTo(c.clip_frac, 5)
        }
        const grads = join(
          folder,
          `train/grpo.grads.${c.loss_type}_${c.beta}_${c.eps_high}_${c.scale_rewards}.safetensors`,
        )
        if (existsSync(grads) && !c.parts && !c.importance_sampling_level) await expectGradients(grads, memory)
      })
    }
  })

for (const folder of folders)
  describe.skipIf(!existsSync(join(folder, 'train/kd.json')))(`golden distillation, ${folder}`, async () => {
    const d = existsSync(join(folder, 'train/kd.json')) ? readJson(join(folder, 'train/kd.json')) : { ids: [] }
    const scored: [number, number][] = d.ids.flatMap((_: unknown, b: number) =>
      d.labels[b].flatMap((label: number, t: number) => (t > 0 && label !== -100 ? [[b, t - 1]] : [])),
    )
    const run = d.lora && (await load(folder, 'kd.adapter.safetensors', d.lora, d.ids, scored))
    const full = d.lora && (await readTensors(join(folder, 'train/kd.teacher.safetensors')))
    const total = scored.length

    // Of the teacher's ids alone, as if there were no others, no objective is made: it is biased.
    // biome-ignore lint/suspicious/noExplicitAny: the golden file's layout is its own
    for (const c of (d.cases ?? []).filter(({ name }: any) => !name.includes('renormalized')))
      it(c.name, async () => {
        const whole: boolean = c.name.includes('full_vocab')
        const alpha = c.name.startsWith('ce_plus') ? 0.5 : 0
        const temperature = c.name.includes('_T2') ? 2 : 1
        const teacher = d.teachers[c.teacher]
        const log = full.get(c.teacher === 'plain' ? 'log_probs' : 'log_probs_peaked')!
        const v = log.shape[2]
        const width: number = whole ? v : d.K
        const k = width + (alpha ? 1 : 0)
        const picks = new Float64Array(total * k).fill(-1)
        const targets = new Float64Array(total * k)
        const teacherLogProbs = new Float64Array(total * k).fill(-1e30)
        const tail = new Float64Array(total).fill(-1e30)
        scored.forEach(([b, t], r) => {
          if (whole) {
            const row: Float64Array = log.data.subarray((b * log.shape[1] + t) * v, (b * log.shape[1] + t + 1) * v)
            const lse = Math.log(row.reduce((sum, l) => sum + Math.exp(l / temperature), 0))
            row.forEach((l, id) => {
              picks[r * k + id] = id
              teacherLogProbs[r * k + id] = l / temperature - lse
            })
            return
          }
          const label = d.labels[b][t + 1]
          const own: number[] = teacher.top_ids[b][t]
          picks.set(own, r * k)
          teacherLogProbs.set(teacher.top_logp[b][t], r * k)
          tail[r] = teacher.tail_logp[b][t]
          if (!alpha) return
          // The target is added to the picks unless the teacher has it.
          const at = own.indexOf(label)
          targets[r * k + (at >= 0 ? at : k - 1)] = 1
          if (at < 0) picks[r * k + k - 1] = label
        })
        const beta = c.name.startsWith('reverse') ? 1 : c.name.startsWith('jsd') ? 0.5 : 0
        const { results, gradNorm, memory } = run(
          {
            ...{ picks, teacherLogProbs, teacherTail: tail, weights: new Float64Array(total).fill(1 / total) },
            temperature: Float64Array.of(temperature),
            ...(alpha && { targetColumn: targets }),
          },
          distillation({ width, temperature, alpha, beta }),
        )
        // Peaked teachers: their tails, below 1e-6, are what float32 left of them.
        const tolerance = c.name.includes('peaked') ? 1e-4 : 1e-5
        near(results.loss[0], c.loss, tolerance)
        near(gradNorm, c.grad_norm, tolerance)
        const grads = join(folder, `train/kd.grads.${c.name}.safetensors`)
        if (existsSync(grads)) await expectGradients(grads, memory)
      })
  })
