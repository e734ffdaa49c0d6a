import type { MetricsLine } from '../train/metrics.ts'
import type { ScoredRollout } from '../train/rewarded.ts'
import { plot } from './plot.ts'

type Step = Extract<MetricsLine, { loss: number }>

const curves = [
  ['reward', 'reward'],
  ['length', 'meanLength'],
  ['KL', 'kl'],
  ['entropy', 'entropy'],
] as const

/** Curves of a run, two side by side, each with its name above it. */
export function drawCurves(steps: readonly Step[], width: number, height = 4): string[] {
  const own = Math.max(12, Math.floor((width - 24) / 2))
  const drawn = curves.flatMap(([title, key]) => {
    const values = steps.flatMap((step) => step[key] ?? [])
    return values.length > 1 ? [[title, ...plot(values, own, height).split('\n')]] : []
  })
  const lines: string[] = []
  for (let i = 0; i < drawn.length; i += 2) {
    const [left, right = []] = [drawn[i], drawn[i + 1]]
    const column = Math.max(...left.map((line) => line.length)) + 3
    for (let y = 0; y < left.length; y++) lines.push(`${left[y].padEnd(column)}${right[y] ?? ''}`)
  }
  return lines
}

/** The best and the worst completion of the latest batch, a line each. */
export function bestAndWorst(rollouts: readonly ScoredRollout[]): string[] {
  if (rollouts.length === 0) return []
  const sorted = [...rollouts].sort((a, b) => b.reward - a.reward)
  const line = (name: string, { reward, prompt, completion }: ScoredRollout) => {
    const asked = typeof prompt === 'string' ? prompt : String(prompt.at(-1)?.content ?? '')
    return [`${name} (reward ${reward.toPrecision(3)}): ${oneLine(asked)}`, `  ${oneLine(completion)}`]
  }
  return [...line('best', sorted[0]), ...line('worst', sorted.at(-1)!)]
}

const oneLine = (text: string): string => text.replace(/\s+/g, ' ').trim()
