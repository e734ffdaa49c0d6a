import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { makeProblem } from '../../examples/nano/problems.ts'
import { LiveBlock } from '../../sdk/cli/live.ts'
import { loadRewards } from '../../sdk/cli/rewards.ts'
import { bestAndWorst, drawCurves } from '../../sdk/cli/rollouts.ts'
import { halfling, halflingJson } from './halfling.ts'

const folder = mkdtempSync(join(tmpdir(), 'halfling-grpo-cli-'))
afterAll(() => rm(folder, { recursive: true, force: true }))
const data = join(folder, 'rows.jsonl')
writeFileSync(data, Array.from({ length: 40 }, (_, i) => JSON.stringify(makeProblem('backward', 51, i))).join('\n'))

describe('halfling grpo', () => {
  it('runs a file of settings in TRL’s names, with rewards of its own; the same seed gives the same numbers', async () => {
    const short = join(folder, 'short.mjs')
    writeFileSync(
      short,
      'export const short = (completions) => completions.map((c) => -c.completionIds.length / 100)\n',
    )
    const config = join(folder, 'grpo.yaml')
    writeFileSync(
      config,
      `data: ${data}
max_steps: 2
per_device_train_batch_size: 16
num_generations: 8
max_completion_length: 48
temperature: 1.3
learning_rate: 1.0e-3
loss_type: dr_grpo
scale_rewards: none
reward_funcs: [accuracy, ${short}]
reward_weights: [1, 0.5]
beta: 0.01
lora_r: 4
`,
    )
    const run = (name: string) => ['grpo', '--config', config, '--output-dir', join(folder, name)]
    const { value, code } = await halflingJson(run('one'))
    expect(code).toBe(0)
    expect(value).toMatchObject({ step: 2, kl: expect.any(Number), 'rewards/short': expect.any(Number) })
    expect(value.reward).toBeCloseTo(value['rewards/accuracyReward'] + 0.5 * value['rewards/short'], 10)
    await halflingJson(run('two'))
    const adapter = (name: string) => readFileSync(join(folder, name, 'adapter_model.safetensors'))
    expect(adapter('two').equals(adapter('one'))).toBe(true)
  })

  it.each([
    [['--reward-funcs', 'acuracy'], /acuracy is neither a file nor one of accuracy, format, length, repetition/],
    [['--num-generations', '1'], /option '--num-generations': 1 is not an integer from 2/],
    [['--num-generation', '4'], /unknown option '--num-generation'/],
    [['--reward-funcs', data], /rows\.jsonl cannot be loaded: /],
  ])('%j is refused', async (flags, message) => {
    const { code, stderr } = await halfling(['grpo', '--data', data, '--output-dir', join(folder, 'no'), ...flags])
    expect(code).not.toBe(0)
    expect(stderr).toMatch(message)
  })
})

it('rewards come by name, or from files: all that they export', async () => {
  const two = join(folder, 'two.mjs')
  writeFileSync(
    two,
    'export const a = (c) => c.map(() => 1)\nexport const b = (c) => c.map(() => 2)\nexport const no = 3\n',
  )
  const loaded = await loadRewards(['format', two])
  expect(loaded.map(({ name }) => name)).toEqual(['formatReward', 'a', 'b'])
  const broken = join(folder, 'broken.mjs')
  writeFileSync(broken, 'export const = 1')
  await expect(loadRewards([broken])).rejects.toThrow(/broken\.mjs cannot be loaded/)
})

describe('the live view', () => {
  const steps = Array.from({ length: 30 }, (_, i) => ({
    ...{ step: i + 1, epoch: 0, loss: 0, gradNorm: 1, learningRate: 0, tokens: 0, tokensPerSecond: 1 },
    ...{ reward: i / 30, meanLength: 40 - i, entropy: 0.1 },
  }))

  it('shows curves two by two, within the width', () => {
    const lines = drawCurves(steps, 80, 3)
    expect(lines.map((line) => line.trimEnd())).toMatchSnapshot()
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(80)
    expect(drawCurves(steps.slice(0, 1), 80)).toEqual([])
  })

  it('shows the best and the worst completion', () => {
    const rollout = (reward: number, completion: string) => ({
      ...{
        prompt: [{ role: 'user', content: 'How\nmany?' }],
        group: 0,
        completion,
        completionIds: [1],
        truncated: false,
      },
      ...{ row: {}, reward, advantage: 0 },
    })
    expect(bestAndWorst([rollout(0.5, 'so so'), rollout(1, 'good\nanswer'), rollout(0, 'bad')])).toEqual([
      'best (reward 1.00): How many?',
      '  good answer',
      'worst (reward 0.00): How many?',
      '  bad',
    ])
  })

  it('is drawn over, each line within the terminal', () => {
    const written: string[] = []
    const block = new LiveBlock({ columns: 12, write: (text: string) => written.push(text) })
    block.draw(['one', 'a line that is too long'])
    block.draw(['two'])
    block.clear()
    expect(written).toEqual(['\r\x1b[Kone\na line tha…\n', '\x1b[2A\x1b[J\r\x1b[Ktwo\n', '\x1b[1A\x1b[J'])
  })
})
