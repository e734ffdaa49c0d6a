import { notScored, packBatch } from '../data/pack.ts'
import type { Example } from '../data/tokenize.ts'
import { z } from '../zod.ts'
import type { PolicyTerms } from './objectives.ts'
import type { StepMetrics } from './run.ts'

const ids = z.array(z.int().min(0)).readonly()
const floats = z.array(z.number()).readonly()

/** A completion on its way through the updates, as a checkpoint holds it. */
export const sample = z.object({
  promptIds: ids,
  completionIds: ids,
  truncated: z.boolean(),
  advantage: z.number(),
  /** The sampler's. */
  logProbs: floats,
  /** The trainer's when it was drawn; where they are not simply those of the update. */
  oldLogProbs: floats.optional(),
  refLogProbs: floats.optional(),
  /** What each token weighs since another model drew it: `importanceWeights`. */
  importance: floats.optional(),
})
export type Sample = Readonly<z.infer<typeof sample>>

/** A completion in a micro-batch, with the weight of each of its tokens. */
export interface Weighed {
  readonly sample: Sample
  readonly weight: number
}

export const exampleOf = (
  { promptIds, completionIds }: Pick<Sample, 'promptIds' | 'completionIds'>,
  row: number,
): Example => ({
  inputIds: [...promptIds, ...completionIds],
  labels: [...promptIds.map(() => notScored), ...completionIds],
  row,
})

/** A micro-batch, and the inputs of `policy`. */
export function policyInputs(
  completions: readonly Weighed[],
  { old, ref, sequences }: PolicyTerms,
  temperature: number,
) {
  const batch = packBatch(completions.map(({ sample }, row) => exampleOf(sample, row)))
  const tokens = completions.flatMap((completion, i) =>
    completion.sample.completionIds.map((_, t) => ({ ...completion, i, t })),
  )
  /** One value for each token, in the order of the batch's rows. */
  const rows = (value: (token: Weighed & { i: number; t: number }) => number, padding = 0) => {
    const all = new Float32Array(batch.rows.length).fill(padding)
    all.set(tokens.map(value))
    return all
  }
  const inputs: Record<string, Float32Array | Int32Array> = {
    targets: batch.targets,
    temperature: Float32Array.of(temperature),
    weights: rows(({ weight }) => weight),
    // The surrogate is proportional to it, the KL term is not.
    advantages: rows(({ sample, t }) => sample.advantage * (sample.importance?.[t] ?? 1)),
    ...(old && { oldLogProbs: rows(({ sample, t }) => sample.oldLogProbs![t]) }),
    ...(ref && { refLogProbs: rows(({ sample, t }) => sample.refLogProbs![t]) }),
    ...(sequences !== null && {
      segments: Int32Array.from(rows(({ i }) => i, -1)),
      shares: rows(({ sample }) => 1 / sample.completionIds.length),
    }),
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
    completions: readonly Pick<Weighed, 'sample'>[],
    out: Record<string, Float32Array>,
    { epsLow, epsHigh }: PolicyTerms,
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
        this.sums.clipRatioLow += ratio < 1 - epsLow && sample.advantage < 0 ? 1 : 0
        this.sums.clipRatioHigh += ratio > 1 + epsHigh && sample.advantage > 0 ? 1 : 0
        this.sums.samplingDifference += difference
        this.greatest = Math.max(this.greatest, difference)
        this.tokens++
        row++
      }
  }

  /** The loss alone where no token trained. */
  metrics({ ref }: PolicyTerms, corrected = false): StepMetrics {
    if (this.tokens === 0) return { loss: this.loss }
    const mean = (sum: number) => sum / this.tokens
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
