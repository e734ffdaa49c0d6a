import type { TrainingSettings } from './config.ts'

/**
 * Learning rate of an optimizer step, by the formulas of transformers' get_scheduler.
 *
 * @param step from 0
 * @param warmupSteps the rate rises linearly from 0 (which is what step 0 gets) over these; `constant` has none
 */
export function learningRateAt(
  schedule: TrainingSettings['lrSchedulerType'],
  base: number,
  step: number,
  warmupSteps: number,
  totalSteps: number,
): number {
  if (schedule === 'constant') return base
  if (step < warmupSteps) return (base * step) / Math.max(1, warmupSteps)
  if (schedule === 'constant_with_warmup') return base
  const left = Math.max(1, totalSteps - warmupSteps)
  if (schedule === 'linear') return base * Math.max(0, (totalSteps - step) / left)
  return base * Math.max(0, 0.5 * (1 + Math.cos((Math.PI * (step - warmupSteps)) / left)))
}
