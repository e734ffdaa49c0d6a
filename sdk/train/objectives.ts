import type { Graph, Tensor } from '../graph/graph.ts'
import { LOG_ZERO } from '../log-zero.ts'
import {
  add,
  clamp,
  exp,
  fill,
  gatherRows,
  logAddExp,
  min,
  mul,
  scale,
  segmentSum,
  stopGradient,
  sub,
  sum,
  view,
  vocabPick,
  where,
} from '../ops/index.ts'

// What is minimized: functions of the log-probabilities of chosen tokens. R rows are scored; rows of padding weigh 0.

/** What the model says of R rows at the ids i32[R, K] that are asked for, under the softmax at a temperature [1]. */
export type Pick = (
  ids: Tensor,
  temperature: Tensor,
) => {
  /** [R, K] */
  readonly logProbs: Tensor
  /** [R], nats */
  readonly entropy: Tensor
  /** [R], log of the mass of all other ids */
  readonly tail: Tensor
}

export const pickFrom =
  (g: Graph, hidden: Tensor, table: Tensor): Pick =>
  (ids, temperature) => {
    const [logProbs, , entropy, tail] = vocabPick(g, hidden, table, ids, temperature)
    return { logProbs, entropy, tail }
  }

/** Appends the loss [1] of `r` rows, with whatever else a run should return of them. Its inputs are documented at each. */
export type Objective = (g: Graph, r: number, pick: Pick) => { loss: Tensor; [output: string]: Tensor }

const f32 = (g: Graph, name: string, ...shape: number[]) => g.input(name, { dtype: 'f32', shape })
const i32 = (g: Graph, name: string, ...shape: number[]) => g.input(name, { dtype: 'i32', shape })

/** log p of the input `targets` i32[R] at temperature 1. [R] */
function targetLogProbs(g: Graph, r: number, pick: Pick): Tensor {
  const { logProbs } = pick(view(g, i32(g, 'targets', r), [r, 1]), fill(g, [1], 1))
  return view(g, logProbs, [r])
}

/** -Σ weight·log p(target): the mean over tokens when the host's weights are 1/count. Inputs `targets` i32[R] and `weights` [R]. */
export const crossEntropy: Objective = (g, r, pick) => {
  const logProbs = targetLogProbs(g, r, pick)
  return { loss: scale(g, sum(g, mul(g, logProbs, f32(g, 'weights', r))), -1) }
}

export interface DistillTerms {
  /** Ids of the teacher a row at most. */
  readonly width: number
  readonly temperature: number
  /** Share of the cross-entropy, 0 to 1. */
  readonly alpha: number
  /** 0: KL(teacher‖student), 1: KL(student‖teacher), between: beta·KL(teacher‖mix) + (1 - beta)·KL(student‖mix). */
  readonly beta: number
}

/**
 * Σ weight·((1 - alpha)·T²·divergence at T + alpha·cross-entropy at 1), all ids beside the teacher's as one, the tail.
 *
 * Inputs: `picks` i32[R, K], `temperature` [1], `teacherLogProbs` [R, K] (-1e30 in columns that are no id of the teacher's),
 * `teacherTail` [R], `weights` [R]. With alpha K is width + 1, and `targetColumn` [R, K] is 1 where the row's own token is: a column
 * of its own where the teacher does not have it. At T other than 1 its log-probability needs `targets` i32[R].
 */
export const distillation =
  ({ width, temperature, alpha, beta }: DistillTerms): Objective =>
  (g, r, pick) => {
    const k = alpha > 0 ? width + 1 : width
    const { logProbs, tail } = pick(i32(g, 'picks', r, k), f32(g, 'temperature', 1))
    const [teacher, teacherTail] = [f32(g, 'teacherLogProbs', r, k), f32(g, 'teacherTail', r)]
    const weights = f32(g, 'weights', r)
    // Positive in the teacher's columns.
    const present = add(g, teacher, fill(g, [1], -0.1 * LOG_ZERO))
    const student = where(g, present, logProbs, fill(g, [r, k], LOG_ZERO))
    const divergence = (rest: Tensor) =>
      add(g, sum(g, divergenceTerms(g, student, teacher, beta), 'last'), divergenceTerms(g, rest, teacherTail, beta))
    const scored = (rows: Tensor) => ({ loss: sum(g, mul(g, rows, weights)) })
    const squared = temperature * temperature
    if (alpha === 0) return scored(scale(g, divergence(tail), squared))

    const column = f32(g, 'targetColumn', r, k)
    const atTarget = sum(g, mul(g, logProbs, column), 'last')
    // A target beside the teacher's ids belongs to the tail.
    const added = sum(g, where(g, present, fill(g, [r, k], 0), column), 'last')
    const rest = logAddExp(g, tail, where(g, added, atTarget, fill(g, [r], LOG_ZERO)))
    const target = temperature === 1 ? atTarget : targetLogProbs(g, r, pick)
    return scored(sub(g, scale(g, divergence(rest), (1 - alpha) * squared), scale(g, target, alpha)))
  }

/** Elementwise terms of the divergence of log-probabilities s (student) and p (teacher); 0 where both are -1e30. */
function divergenceTerms(g: Graph, s: Tensor, p: Tensor, beta: number): Tensor {
  /** exp(a)·(a - b) */
  const kl = (a: Tensor, b: Tensor) => mul(g, exp(g, a), sub(g, a, b))
  if (beta === 0) return kl(p, s)
  if (beta === 1) return kl(s, p)
  const mix = logAddExp(g, add(g, p, fill(g, [1], Math.log(beta))), add(g, s, fill(g, [1], Math.log(1 - beta))))
  return add(g, scale(g, kl(p, mix), beta), scale(g, kl(s, mix), 1 - beta))
}

export interface PolicyTerms {
  /** Other log-probabilities than the update's own: of the policy that drew, and of the reference. */
  readonly old: boolean
  readonly ref: boolean
  /** Completions of a micro-batch at most, for one ratio a completion; null: a ratio a token. */
  readonly sequences: number | null
  /** The ratio is clipped to [1 - epsLow, 1 + epsHigh]. */
  readonly epsLow: number
  readonly epsHigh: number
  /** Weight of the divergence from the reference. */
  readonly beta: number
}

/**
 * Σ weight·(-min(ratio·A, clip(ratio)·A) + beta·KL) of sampled tokens, as TRL's GRPOTrainer, with what is logged of each: the ratio
 * p/p_old (of the token or of its completion), the log-probability, the entropy and, with a reference, the k3 estimate of the KL.
 *
 * Inputs: `targets` i32[R], `temperature` [1], `advantages` [R], `weights` [R] (the host's: `tokenWeights`); `oldLogProbs` and
 * `refLogProbs` [R] where there are; with `sequences` the completion of each row, `segments` i32[R] (-1: padding), and 1/length of it,
 * `shares` [R].
 */
export const policy =
  ({ old, ref, sequences, epsLow, epsHigh, beta }: PolicyTerms): Objective =>
  (g, r, pick) => {
    const picked = pick(view(g, i32(g, 'targets', r), [r, 1]), f32(g, 'temperature', 1))
    const logProbs = view(g, picked.logProbs, [r])
    const oldLogProbs = old ? f32(g, 'oldLogProbs', r) : stopGradient(g, logProbs)
    const refLogProbs = ref ? f32(g, 'refLogProbs', r) : null
    const [advantages, weights] = [f32(g, 'advantages', r), f32(g, 'weights', r)]
    const difference = sub(g, logProbs, oldLogProbs)
    const ratio = exp(g, sequences === null ? difference : meanOverSequences(g, difference, sequences))
    const clipped = clamp(g, ratio, 1 - epsLow, 1 + epsHigh)
    const negative = scale(g, min(g, mul(g, ratio, advantages), mul(g, clipped, advantages)), -1)
    const outputs = { ratio, logProbs, entropy: picked.entropy }
    if (refLogProbs === null) return { loss: sum(g, mul(g, negative, weights)), ...outputs }
    const d = sub(g, refLogProbs, logProbs)
    const kl = sub(g, sub(g, exp(g, d), d), fill(g, [1], 1))
    const rows = beta === 0 ? negative : add(g, negative, scale(g, kl, beta))
    return { loss: sum(g, mul(g, rows, weights)), ...outputs, kl }
  }

/** Each row's completion's mean of x [R]. */
function meanOverSequences(g: Graph, x: Tensor, count: number): Tensor {
  const [segments, shares] = [i32(g, 'segments', ...x.shape), f32(g, 'shares', ...x.shape)]
  const means = segmentSum(g, mul(g, x, shares), segments, count)
  return view(g, gatherRows(g, view(g, means, [count, 1]), segments), x.shape)
}
