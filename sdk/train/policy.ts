import { notScored, packBatch } from '../data/pack.ts'
import type { Example } from '../data/tokenize.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import { view, vocabPick } from '../ops/index.ts'
import type { StepResult } from './loop.ts'
import { type GrpoLoss, grpoLoss } from './objectives.ts'

// The loss of a policy that is updated on its own completions, and what goes into it.

/** A completion on its way through the updates. */
export interface Sample {
  readonly promptIds: readonly number[]
  readonly completionIds: readonly number[]
  readonly truncated: boolean
  readonly advantage: number
  /** The sampler's. */
  readonly logProbs: readonly number[]
  /** The trainer's when it was drawn; where they are not simply those of the update. */
  readonly oldLogProbs?: readonly number[]
  readonly refLogProbs?: readonly number[]
  /** What each token weighs since another model drew it: `importanceWeights`. */
  readonly importance?: readonly number[]
}

export const exampleOf = (
  { promptIds, completionIds }: Pick<Sample, 'promptIds' | 'completionIds'>,
  row: number,
): Example => ({
  inputIds: [...promptIds, ...completionIds],
  labels: [...promptIds.map(() => notScored), ...completionIds],
  row,
})

/** What the graph of the loss has. */
export interface PolicyObjective {
  /** Other log-probabilities than the update's own: of the policy that drew, and of the reference. */
  readonly old: boolean
  readonly ref: boolean
  /** Completions of a micro-batch at most, for one ratio a completion; null: a ratio a token. */
  readonly sequences: number | null
  readonly epsLow: number
  readonly epsHigh: number
  readonly beta: number
}

/** The loss of the sampled tokens, with what is logged of each. Inputs as `policyInputs` makes them. */
export function policyObjective(
  g: Graph,
  hidden: Tensor,
  table: Tensor,
  { old, ref, sequences, epsLow, epsHigh, beta }: PolicyObjective,
): Pick<GrpoLoss, 'loss' | 'ratio'> & { logProbs: Tensor; entropy: Tensor; kl?: Tensor } {
  const [r] = hidden.shape
  const f32 = (name: string, n = r) => g.input(name, { dtype: 'f32', shape: [n] })
  const i32 = (name: string) => g.input(name, { dtype: 'i32', shape: [r] })
  const picked = vocabPick(g, hidden, table, view(g, i32('targets'), [r, 1]), f32('temperature', 1))
  const logProbs = view(g, picked[0], [r])
  const { loss, ratio, kl } = grpoLoss(
    g,
    {
      logProbs,
      ...(old && { oldLogProbs: f32('oldLogProbs') }),
      ...(ref && { refLogProbs: f32('refLogProbs') }),
      advantages: f32('advantages'),
      weights: f32('weights'),
      ...(sequences !== null && {
        sequences: { segments: i32('segments'), shares: f32('shares'), count: sequences },
      }),
    },
    { epsLow, epsHigh, beta },
  )
  return { loss, ratio, logProbs, entropy: picked[2], ...(kl && { kl }) }
}

/** A micro-batch and the inputs of its loss; `weight` is that of each of the completion's tokens. */
export function policyInputs(
  completions: readonly {
    readonly sample: Sample
    readonly weight: number
  }[],
  { old, ref, sequences }: PolicyObjective,
  temperature: number,
) {
  const batch = packBatch(completions.map(({ sample }, row) => exampleOf(sample, row)))
  const rows = batch.rows.length
  const fill = (of: (c: (typeof completions)[number], i: number) => (t: number) => number, pad = 0) => {
    const all = new Float32Array(rows).fill(pad)
    let at = 0
    for (const [i, c] of completions.entries()) {
      const value = of(c, i)
      for (let t = 0; t < c.sample.completionIds.length; t++) all[at++] = value(t)
    }
    return all
  }
  const inputs: Record<string, Float32Array | Int32Array> = {
    targets: batch.targets,
    temperature: Float32Array.of(temperature),
    weights: fill(
      ({ weight }) =>
        () =>
          weight,
    ),
    // The surrogate is proportional to it, the KL term is not.
    advantages: fill(
      ({ sample: { advantage, importance } }) =>
        (t) =>
          advantage * (importance?.[t] ?? 1),
    ),
  }
  if (old)
    inputs.oldLogProbs = fill(
      ({ sample }) =>
        (t) =>
          sample.oldLogProbs![t],
    )
  if (ref)
    inputs.refLogProbs = fill(
      ({ sample }) =>
        (t) =>
          sample.refLogProbs![t],
    )
  if (sequences !== null) {
    inputs.segments = Int32Array.from(fill((_, i) => () => i, -1))
    inputs.shares = fill(
      ({ sample }) =>
        () =>
          1 / sample.completionIds.length,
    )
  }
  return { batch, inputs }
}

/** Sums over the tokens of a step, for its metrics. */
export class TokenSums {
  private tokens = 0
  private loss = 0
  private readonly sums = { entropy: 0, kl: 0, clipRatioLow: 0, clipRatioHigh: 0, samplingDifference: 0 }
  private importance = 0
  private greatest = 0

  add(
    completions: readonly { readonly sample: Sample }[],
    out: Record<string, Float32Array>,
    { epsilon, epsilonHigh }: { readonly epsilon: number; readonly epsilonHigh: number },
  ): void {
    this.loss += out.loss[0]
    let row = 0
    for (const { sample } of completions)
      for (const [t, own] of sample.logProbs.entries()) {
        const ratio = out.ratio[row]
        const difference = Math.abs((sample.oldLogProbs?.[t] ?? out.logProbs[row]) - own)
        this.importance += sample.importance?.[t] ?? 1
        this.sums.entropy += out.entropy[row]
        this.sums.kl += out.kl?.[row] ?? 0
        this.sums.clipRatioLow += ratio < 1 - epsilon && sample.advantage < 0 ? 1 : 0
        this.sums.clipRatioHigh += ratio > 1 + epsilonHigh && sample.advantage > 0 ? 1 : 0
        this.sums.samplingDifference += difference
        this.greatest = Math.max(this.greatest, difference)
        this.tokens++
        row++
      }
  }

  metrics({ ref }: PolicyObjective, corrected = false): StepResult['metrics'] {
    const mean = (sum: number) => sum / Math.max(1, this.tokens)
    const { kl, ...sums } = this.sums
    return {
      loss: this.loss,
      ...Object.fromEntries(Object.entries(sums).map(([name, sum]) => [name, mean(sum)])),
      samplingDifferenceMax: this.greatest,
      ...(ref && { kl: mean(kl) }),
      ...(corrected && { importanceWeight: mean(this.importance) }),
    }
  }
}
