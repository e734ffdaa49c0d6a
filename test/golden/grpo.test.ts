import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { gradientName } from '../../sdk/graph/graph.ts'
import type { Model } from '../../sdk/model/model.ts'
import { groupAdvantages, tokenWeights } from '../../sdk/train/advantages.ts'
import { type PolicyTerms, policy } from '../../sdk/train/objectives.ts'
import { policyInputs, TokenSums } from '../../sdk/train/policy.ts'
import { TrainStep } from '../../sdk/train/step.ts'
import { candidates } from '../suite.ts'
import {
  bareModel,
  foldersWith,
  type GoldenLora,
  goldenRoot,
  missing,
  readJson,
  readTensors,
  useAdapter,
} from './golden.ts'

// The trainer's own advantages, weights, objective and metrics on every target against PyTorch: four ways to take the mean, KL,
// clipping, one ratio a completion, unequal micro-batches.

interface Case {
  readonly loss_type: 'grpo' | 'bnpo' | 'dapo' | 'dr_grpo'
  readonly beta: number
  readonly eps_low: number
  readonly eps_high: number
  readonly scale_rewards: 'group' | 'none'
  readonly importance_sampling_level?: 'sequence'
  readonly parts?: number[][]
  readonly loss: number
  readonly grad_norm: number
  readonly mean_kl?: number
  readonly clip_frac?: number
  readonly mean_entropy?: number
}
interface Golden {
  readonly ids: number[][]
  readonly prompt_len: number
  readonly completion_mask: number[][]
  readonly rewards: number[]
  readonly group_size: number
  readonly max_completion_length: number
  readonly advantages: Record<'group' | 'none', number[]>
  readonly old_logp: number[][]
  readonly ref_logp: number[][]
  readonly lora: GoldenLora
  readonly cases: Case[]
  readonly micro_batches: Case[]
  readonly sequence_level: Case[]
}

const folders = foldersWith('train').filter((folder) => existsSync(join(folder, 'train/grpo.json')))
const titleOf = (c: Case) =>
  [c.loss_type, c.beta, c.eps_high, c.scale_rewards, c.importance_sampling_level, c.parts && 'two parts']
    .filter((part) => part !== undefined)
    .join(', ')

describe.skipIf(missing !== null)('golden advantages', () => {
  for (const folder of folders)
    it(folder, () => {
      const d = readJson<Golden>(join(folder, 'train/grpo.json'))
      for (const scale of ['group', 'none'] as const)
        for (const [i, advantage] of groupAdvantages(d.rewards, d.group_size, scale).entries())
          expect(advantage).toBeCloseTo(d.advantages[scale][i], 5)
    })
})

for (const candidate of await candidates())
  describe.skipIf(missing !== null || candidate.skip !== undefined)(
    `golden GRPO, ${candidate.label}${missing ? ` (${missing})` : ''}`,
    () => {
      if (folders.length === 0) it.skip(`golden GRPO: none in ${goldenRoot}`)
      for (const folder of folders) {
        const d = readJson<Golden>(join(folder, 'train/grpo.json'))
        let model: Model
        beforeAll(async () => {
          model = await bareModel(await candidate.open(), folder, 'f32')
          await useAdapter(model, join(folder, 'train/grpo.adapter.safetensors'), d.lora)
        })
        afterAll(() => model?.target.close())
        for (const c of [...d.cases, ...d.micro_batches, ...d.sequence_level])
          it(`${folder}: ${titleOf(c)}`, async () => {
            const parts = c.parts ?? [d.ids.map((_, i) => i)]
            const terms: PolicyTerms = {
              old: true,
              ref: true,
              sequences: c.importance_sampling_level === 'sequence' ? d.ids.length : null,
              epsLow: c.eps_low,
              epsHigh: c.eps_high,
              beta: c.beta,
            }
            const step = new TrainStep(model, {
              trains: 'adapter',
              gradientCheckpointing: false,
              dropout: 0,
              objective: policy(terms),
            })
            try {
              const samples = d.ids.map((ids, b) => {
                const scored = d.completion_mask[b].flatMap((m, t) => (m ? [t] : []))
                const oldLogProbs = scored.map((t) => d.old_logp[b][t])
                return {
                  ...{ prompt: '', group: 0, completion: '', truncated: false, row: {}, reward: d.rewards[b] },
                  promptIds: ids.slice(0, d.prompt_len),
                  completionIds: scored.map((t) => ids[t + 1]),
                  advantage: d.advantages[c.scale_rewards][b],
                  logProbs: oldLogProbs,
                  oldLogProbs,
                  refLogProbs: scored.map((t) => d.ref_logp[b][t]),
                }
              })
              const lengths = parts.map((part) => part.map((i) => samples[i].completionIds.length))
              const weights = tokenWeights(lengths, c.loss_type, d.max_completion_length)
              const sums = new TokenSums()
              for (const [p, part] of parts.entries()) {
                const weighed = part.map((i, at) => ({ sample: samples[i], weight: weights[p][at] }))
                const { batch, inputs } = policyInputs(weighed, terms, 1)
                const out = await step.accumulate(batch, inputs, [0, 0])
                sums.add(weighed, out, terms)
              }
              const near = (got: number, want: number, what: string, tolerance = 1e-5) =>
                expect(Math.abs(got - want) / Math.abs(want), what).toBeLessThan(tolerance)
              const metrics = sums.metrics(terms)
              near(metrics.loss, c.loss, 'loss')
              if (c.mean_kl !== undefined) near(metrics.kl, c.mean_kl, 'KL')
              if (c.mean_entropy !== undefined) near(metrics.entropy, c.mean_entropy, 'entropy')
              if (c.clip_frac !== undefined)
                expect(metrics.clipRatioLow + metrics.clipRatioHigh).toBeCloseTo(c.clip_frac, 6)
              let squares = 0
              const grads = new Map<string, Float32Array>()
              for (const name of step.parameters.keys()) {
                const grad = await model.readFloats(gradientName(name))
                grads.set(name, grad)
                squares += grad.reduce((sum, x) => sum + x * x, 0)
              }
              near(Math.sqrt(squares), c.grad_norm, 'gradient norm')
              const { loss_type, beta, eps_high, scale_rewards } = c
              const stored = join(
                folder,
                `train/grpo.grads.${loss_type}_${beta}_${eps_high}_${scale_rewards}.safetensors`,
              )
              if (!existsSync(stored) || c.parts || c.importance_sampling_level) return
              for (const [key, { data }] of await readTensors(stored)) {
                const name = key.replace(/^base_model\.model\./, 'adapter/0/').replace(/\.weight$/, '')
                const got = grads.get(name)!
                const size = data.reduce((a, b) => Math.max(a, Math.abs(b)), 0)
                expect(Math.max(...data.map((x, i) => Math.abs(x - got[i]))) / size, key).toBeLessThan(1e-4)
              }
            } finally {
              step.free()
            }
          })
      }
    },
  )
