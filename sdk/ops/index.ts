import type { OpSpec } from '../graph/spec.ts'
import { accumulateOp } from './accumulate.ts'
import { attentionOp } from './attention.ts'
import { attentionBackOp } from './attention-back.ts'
import { attentionCachedOp } from './attention-cached.ts'
import { doraNormOp } from './dora-norm.ts'
import { drawTokensOp } from './draw-tokens.ts'
import { dropoutOp } from './dropout.ts'
import {
  addOp,
  clampOp,
  divOp,
  expOp,
  log1pOp,
  logAddExpOp,
  logOp,
  maxOp,
  minOp,
  mulOp,
  scaleOp,
  subOp,
  whereOp,
} from './elementwise.ts'
import { embedBackOp, embedOp } from './embed.ts'
import { fillOp } from './fill.ts'
import { kvCopyOp, kvWriteOp } from './kv-cache.ts'
import { linearOp } from './linear.ts'
import { linearBackBiasOp, linearBackInputOp, linearBackWeightOp } from './linear-back.ts'
import { loraBackOp, loraOp } from './lora.ts'
import { adamwOp, sumSquaresOp } from './optimizer.ts'
import { rmsnormOp } from './rmsnorm.ts'
import { rmsnormBackOp, rmsnormBackWeightOp } from './rmsnorm-back.ts'
import { ropeOp } from './rope.ts'
import { gatherRowsOp, scatterRowsOp, segmentSumOp } from './rows.ts'
import { sampleOp } from './sample.ts'
import { scaleColumnsBackOp, scaleColumnsOp } from './scale-columns.ts'
import { expandOp, sumOp } from './sum.ts'
import { swigluBackOp, swigluOp } from './swiglu.ts'
import { topLogProbsOp } from './top-log-probs.ts'
import { stopGradientOp, viewOp } from './view.ts'
import { vocabPickOp } from './vocab-pick.ts'
import { vocabPickBackOp, vocabPickBackTableOp } from './vocab-pick-back.ts'

export { accumulate } from './accumulate.ts'
export { type AttentionAttrs, attention } from './attention.ts'
export { attentionCached } from './attention-cached.ts'
export { doraNorm } from './dora-norm.ts'
export { drawTokens } from './draw-tokens.ts'
export { dropout } from './dropout.ts'
export { add, clamp, div, exp, log, log1p, logAddExp, max, min, mul, scale, sub, where } from './elementwise.ts'
export { embed } from './embed.ts'
export { fill, zeros } from './fill.ts'
export { gradient } from './gradient.ts'
export { kvCopy, kvWrite } from './kv-cache.ts'
export { type Activations, linear } from './linear.ts'
export { lora } from './lora.ts'
export { adamw, sumSquares } from './optimizer.ts'
export { rmsnorm } from './rmsnorm.ts'
export { rope } from './rope.ts'
export { gatherRows, scatterRows, segmentSum } from './rows.ts'
export { type SampleControls, type SamplePenalties, sample } from './sample.ts'
export { scaleColumns } from './scale-columns.ts'
export { expand, sum } from './sum.ts'
export { type Activation, swiglu } from './swiglu.ts'
export { topLogProbs } from './top-log-probs.ts'
export { stopGradient, view } from './view.ts'
export { vocabPick } from './vocab-pick.ts'

/** Every op, by its name. */
const specs = {
  embed: embedOp,
  embedBack: embedBackOp,
  rmsnorm: rmsnormOp,
  rmsnormBack: rmsnormBackOp,
  rmsnormBackWeight: rmsnormBackWeightOp,
  linear: linearOp,
  linearBackInput: linearBackInputOp,
  linearBackWeight: linearBackWeightOp,
  linearBackBias: linearBackBiasOp,
  lora: loraOp,
  loraBack: loraBackOp,
  doraNorm: doraNormOp,
  scaleColumns: scaleColumnsOp,
  scaleColumnsBack: scaleColumnsBackOp,
  rope: ropeOp,
  attention: attentionOp,
  attentionBack: attentionBackOp,
  attentionCached: attentionCachedOp,
  kvWrite: kvWriteOp,
  kvCopy: kvCopyOp,
  swiglu: swigluOp,
  swigluBack: swigluBackOp,
  view: viewOp,
  stopGradient: stopGradientOp,
  dropout: dropoutOp,
  gatherRows: gatherRowsOp,
  scatterRows: scatterRowsOp,
  segmentSum: segmentSumOp,
  add: addOp,
  sub: subOp,
  mul: mulOp,
  div: divOp,
  min: minOp,
  max: maxOp,
  logAddExp: logAddExpOp,
  scale: scaleOp,
  exp: expOp,
  log: logOp,
  log1p: log1pOp,
  clamp: clampOp,
  where: whereOp,
  sum: sumOp,
  expand: expandOp,
  fill: fillOp,
  accumulate: accumulateOp,
  vocabPick: vocabPickOp,
  vocabPickBack: vocabPickBackOp,
  vocabPickBackTable: vocabPickBackTableOp,
  sample: sampleOp,
  topLogProbs: topLogProbsOp,
  drawTokens: drawTokensOp,
  sumSquares: sumSquaresOp,
  adamw: adamwOp,
}

export type OpName = keyof typeof specs
export type AttrsOf<N extends OpName> = (typeof specs)[N] extends OpSpec<infer A> ? A : never

export const ops = specs as unknown as Readonly<Record<OpName, OpSpec> & Record<string, OpSpec>>
