import { expect, it } from 'vitest'
import {
  accuracyReward,
  cosineReward,
  formatReward,
  lengthReward,
  type RewardInput,
  repetitionPenalty,
  softOverlongPenalty,
} from '../../sdk/index.ts'

const said = (completion: string, more: Partial<RewardInput> = {}): RewardInput => ({
  prompt: 'q',
  group: 0,
  completion,
  completionIds: new Array(completion.length).fill(1),
  truncated: false,
  row: { answer: '1/2' },
  ...more,
})

it('format: one thought, then one answer, and nothing else', () => {
  const good = ['<think>\na\n</think>\n<answer>1</answer>', ' <think></think><answer></answer>\n']
  const bad = [
    '<answer>1</answer>',
    '<think>a</think>',
    'so <think>a</think><answer>1</answer>',
    '<think>a</think><answer>1</answer> more',
    '<think>a<answer>1</answer></think><answer>1</answer>',
    '<think>a</think><answer>1</answer><answer>2</answer>',
    '<think>a<think>b</think><answer>1</answer>',
  ]
  expect(formatReward(good.map((text) => said(text)))).toEqual([1, 1])
  expect(formatReward(bad.map((text) => said(text)))).toEqual(bad.map(() => 0))
})

it('accuracy: equal as mathematics; null without a right answer', async () => {
  const row = { solution: 'It is so. #### 18' }
  const completions = [
    said('<answer>0.5</answer>'),
    said('\\boxed{\\frac{2}{4}}'),
    said('<answer>2</answer>'),
    said('no answer'),
    said('<answer>18</answer>', { row }),
    said('<answer>1</answer>', { row: {} }),
  ]
  expect(await accuracyReward(completions)).toEqual([1, 1, 0, 0, 1, null])
})

it('length: the shortest right answer of a group is worth most, wrong ones never more than nothing', async () => {
  const right = (n: number) => said('<answer>1/2</answer>', { completionIds: new Array(n).fill(1) })
  const wrong = (n: number) => said('<answer>3</answer>', { completionIds: new Array(n).fill(1) })
  expect(await lengthReward([right(10), right(20), wrong(10), wrong(30)])).toEqual([0.5, 0, 0, -0.5])
  expect(await lengthReward([right(10), right(10)])).toEqual([0, 0])
})

it('cosine: from short to long between the two values', async () => {
  const at = (text: string, n: number) => said(text, { completionIds: new Array(n).fill(1) })
  const right = '<answer>1/2</answer>'
  const rewards = await cosineReward({ maxLength: 100 })([
    at(right, 0),
    at(right, 50),
    at(right, 100),
    at('', 0),
    at('', 100),
  ])
  for (const [i, want] of [1, 0.75, 0.5, -1, -0.5].entries()) expect(rewards[i]).toBeCloseTo(want, 12)
})

it('soft overlong: nothing up to the cache, then down to -1', () => {
  const at = (n: number) => said('', { completionIds: new Array(n).fill(1) })
  const rewards = softOverlongPenalty({ maxLength: 100, cache: 20 })([at(10), at(80), at(90), at(100), at(120)])
  expect(rewards).toEqual([0, 0, -0.5, -1, -1])
})

it('repetition: the share of n-grams that came before', () => {
  const penalty = repetitionPenalty({ ngram: 2, penalty: -1 })
  expect(penalty([said('a b c d'), said('a b a b a b'), said('a'), said('')])).toEqual([0, -(1 - 2 / 5), 0, 0])
})
