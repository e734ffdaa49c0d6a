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
import { fillOp, zerosOp } from './fill.ts'
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
export { kvCopy, kvWrite } from './kv-cache.ts'
export { linear } from './linear.ts'
export { lora } from './lora.ts'
export { adamw, sumSquares } from './optimizer.ts'
export { rmsnorm } from './rmsnorm.ts'
export { rope } from './rope.ts'
export { gatherRows, scatterRows, segmentSum } from './rows.ts'
export { type SampleControls, sample } from './sample.ts'
export { scaleColumns } from './scale-columns.ts'
export { expand, sum } from './sum.ts'
export { swiglu } from './swiglu.ts'
export { topLogProbs } from './top-log-probs.ts'
export { stopGradient, view } from './view.ts'
export { logOfNothing, vocabPick } from './vocab-pick.ts'

/** Every op by name. */
export const ops: Readonly<Record<string, OpSpec>> = Object.fromEntries(
  [
    embedOp,
    embedBackOp,
    rmsnormOp,
    rmsnormBackOp,
    rmsnormBackWeightOp,
    linearOp,
    linearBackInputOp,
    linearBackWeightOp,
    linearBackBiasOp,
    loraOp,
    loraBackOp,
    doraNormOp,
    scaleColumnsOp,
    scaleColumnsBackOp,
    ropeOp,
    attentionOp,
    attentionBackOp,
    attentionCachedOp,
    kvWriteOp,
    kvCopyOp,
    swigluOp,
    swigluBackOp,
    viewOp,
    stopGradientOp,
    dropoutOp,
    gatherRowsOp,
    scatterRowsOp,
    segmentSumOp,
    addOp,
    subOp,
    mulOp,
    divOp,
    minOp,
    maxOp,
    logAddExpOp,
    scaleOp,
    expOp,
    logOp,
    log1pOp,
    clampOp,
    whereOp,
    sumOp,
    expandOp,
    zerosOp,
    fillOp,
    accumulateOp,
    vocabPickOp,
    vocabPickBackOp,
    vocabPickBackTableOp,
    sampleOp,
    topLogProbsOp,
    drawTokensOp,
    sumSquaresOp,
    adamwOp,
  ].map((spec) => [spec.name, spec as unknown as OpSpec]),
)

/** What `gradient` in graph/ asks for. */
export const gradientOps = { add: addOp, accumulate: accumulateOp }
