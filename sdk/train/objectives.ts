import { OptionError } from '../errors.ts'
import type { Graph, Tensor } from '../graph/graph.ts'
import {
  add,
  clamp,
  exp,
  expand,
  fill,
  gatherRows,
  log,
  logAddExp,
  logOfNothing,
  min,
  mul,
  scale,
  segmentSum,
  stopGradient,
  sub,
  sum,
  view,
  where,
} from '../ops/index.ts'

// Objectives as functions of the log-probabilities of chosen tokens. R rows are scored; padding rows weigh 0.

export interface GrpoTensors {
  /** [R], of the sampled tokens under the model that trains */
  readonly logProbs: Tensor
  /** [R], under the model that sampled; left out when that is the model itself (one update a rollout) */
  readonly oldLogProbs?: Tensor
  /** [R], under the reference; without it there is no KL term */
  readonly refLogProbs?: Tensor
  /** [R], the advantage of each token's completion */
  readonly advantages: Tensor
  /** [R], the host's normalization: grpo 1/(sequences·length), bnpo and dapo 1/tokens, dr_grpo 1/(sequences·maxLength) */
  readonly weights: Tensor
  /** One ratio a completion (GSPO): completion of each row, i32[R] (-1: padding), and 1/length of that completion, [R]. */
  readonly sequences?: { readonly segments: Tensor; readonly shares: Tensor; readonly count: number }
}

export interface GrpoOptions {
  /** The ratio is clipped to [1 - epsLow, 1 + epsHigh]. */
  readonly epsLow: number
  readonly epsHigh: number
  /** Weight of the KL to the reference; 0 without one. */
  readonly beta: number
}

export interface GrpoLoss {
  /** [1] */
  readonly loss: Tensor
  /** [R], before the weights */
  readonly rowLoss: Tensor
  /** [R], p/p_old of the token or of its completion */
  readonly ratio: Tensor
  /** [R], the k3 estimate exp(ref - lp) - (ref - lp) - 1; null without a reference */
  readonly kl: Tensor | null
}

/** Σ weight·(-min(ratio·A, clip(ratio)·A) + beta·KL), as TRL's GRPOTrainer. */
export function grpoLoss(g: Graph, t: GrpoTensors, { epsLow, epsHigh, beta }: GrpoOptions): GrpoLoss {
  if (beta !== 0 && !t.refLogProbs)
    throw new OptionError(`beta is ${beta}: the KL term needs reference log-probabilities`)
  const logRatio = sub(g, t.logProbs, t.oldLogProbs ?? stopGradient(g, t.logProbs))
  const ratio = exp(g, t.sequences ? meanOverSequences(g, logRatio, t.sequences) : logRatio)
  const clipped = clamp(g, ratio, 1 - epsLow, 1 + epsHigh)
  const surrogate = min(g, mul(g, ratio, t.advantages), mul(g, clipped, t.advantages))
  const kl = t.refLogProbs ? divergenceK3(g, t.logProbs, t.refLogProbs) : null
  const negative = scale(g, surrogate, -1)
  const rowLoss = kl && beta !== 0 ? add(g, negative, scale(g, kl, beta)) : negative
  return { loss: sum(g, mul(g, rowLoss, t.weights)), rowLoss, ratio, kl }
}

/** Each row's completion's mean of x. */
function meanOverSequences(g: Graph, x: Tensor, s: NonNullable<GrpoTensors['sequences']>): Tensor {
  const means = segmentSum(g, mul(g, x, s.shares), s.segments, s.count)
  return view(g, gatherRows(g, view(g, means, [s.count, 1]), s.segments), x.shape)
}

function divergenceK3(g: Graph, logProbs: Tensor, refLogProbs: Tensor): Tensor {
  const d = sub(g, refLogProbs, logProbs)
  return sub(g, sub(g, exp(g, d), d), fill(g, [1], 1))
}

export interface DistillTensors {
  /** [R, K], the student's vocabPick at the teacher's ids, at the teacher's temperature */
  readonly logProbs: Tensor
  /** [R], the student's mass outside the picked ids */
  readonly tail: Tensor
  /** [R, K]; -1e30 in columns that are no id of the teacher's: padding, or a target added to the picks */
  readonly teacherLogProbs: Tensor
  /** [R], the teacher's mass outside its ids; -1e30 for none */
  readonly teacherTail: Tensor
  /** [R], 1/rows as a rule, times T² at temperature T */
  readonly weights: Tensor
  /** [R, K], 1 in the column that holds the row's target: what cross-entropy looks at */
  readonly targets?: Tensor
}

export interface DistillOptions {
  /** forward: KL(teacher‖student), reverse: KL(student‖teacher), jsd: beta·KL(teacher‖mix) + (1-beta)·KL(student‖mix) */
  readonly divergence: 'forward' | 'reverse' | 'jsd'
  /** jsd only, in (0, 1): mix = beta·teacher + (1-beta)·student */
  readonly beta?: number
  /**
   * The teacher is renormalized over its ids and the tail left out (forward only: the student keeps its full softmax).
   * Otherwise all other ids are one bucket, the tail.
   */
  readonly renormalize?: boolean
  /** In [0, 1]: loss = (1-share)·divergence + share·cross-entropy. Default 0. */
  readonly crossEntropyShare?: number
}

/** Σ weight·((1-share)·divergence + share·cross-entropy) over the teacher's ids and, unless renormalized, the tail. Returns [1]. */
export function distillLoss(g: Graph, t: DistillTensors, options: DistillOptions): Tensor {
  const { divergence, beta = 0.5, renormalize = false, crossEntropyShare: share = 0 } = options
  if (divergence === 'jsd' && !(beta > 0 && beta < 1))
    throw new OptionError(`beta is ${beta}: expected 0 < beta < 1 (at the ends use forward or reverse)`)
  if (renormalize && divergence !== 'forward')
    throw new OptionError(`renormalize goes with the forward divergence, not ${divergence}: use the tail`)
  if (!(share >= 0 && share <= 1)) throw new OptionError(`crossEntropyShare is ${share}: expected 0 to 1`)
  if (share > 0 && !t.targets) throw new OptionError(`crossEntropyShare is ${share}: it needs targets`)
  const { shape } = t.logProbs
  const nothing = fill(g, shape, logOfNothing)
  // Positive in the teacher's columns.
  const present = add(g, t.teacherLogProbs, fill(g, [1], -0.1 * logOfNothing))
  const student = where(g, present, t.logProbs, nothing)
  const between = (s: Tensor, p: Tensor) => divergenceTerms(g, s, p, divergence, beta)
  let rows: Tensor
  if (renormalize) {
    // The clamp keeps padding rows, where the teacher has no id, finite.
    const total = clamp(g, sum(g, exp(g, t.teacherLogProbs), 'last'), 1e-30, 2)
    const mass = expand(g, log(g, total), shape)
    rows = sum(g, between(student, sub(g, t.teacherLogProbs, mass)), 'last')
  } else {
    const tail = t.targets ? logAddExp(g, t.tail, addedTarget(g, t, present)) : t.tail
    rows = add(g, sum(g, between(student, t.teacherLogProbs), 'last'), between(tail, t.teacherTail))
  }
  const mixed = share > 0 ? sub(g, scale(g, rows, 1 - share), scale(g, targetLogProbs(g, t), share)) : rows
  return sum(g, mul(g, mixed, t.weights))
}

const targetLogProbs = (g: Graph, t: DistillTensors): Tensor => sum(g, mul(g, t.logProbs, t.targets!), 'last')

/** The student's log-probability of a target that was added to the picks: it belongs to the tail. [R] */
function addedTarget(g: Graph, t: DistillTensors, present: Tensor): Tensor {
  const zero = fill(g, present.shape, 0)
  const added = sum(g, where(g, present, zero, t.targets!), 'last')
  return where(g, added, targetLogProbs(g, t), fill(g, added.shape, logOfNothing))
}

/** Elementwise terms of the divergence of log-probabilities s (student) and p (teacher); 0 where both are -1e30. */
function divergenceTerms(g: Graph, s: Tensor, p: Tensor, kind: DistillOptions['divergence'], beta: number): Tensor {
  /** exp(a)·(a - b) */
  const kl = (a: Tensor, b: Tensor) => mul(g, exp(g, a), sub(g, a, b))
  if (kind === 'forward') return kl(p, s)
  if (kind === 'reverse') return kl(s, p)
  const mix = logAddExp(g, add(g, p, fill(g, [1], Math.log(beta))), add(g, s, fill(g, [1], Math.log(1 - beta))))
  return add(g, scale(g, kl(p, mix), beta), scale(g, kl(s, mix), 1 - beta))
}
