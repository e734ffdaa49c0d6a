import type { RewardInput } from './reward.ts'

/** One thought, then one answer, and nothing else. */
const thoughtAndAnswer =
  /^\s*<think>(?:(?!<\/?think>|<\/?answer>)[\s\S])*<\/think>\s*<answer>(?:(?!<\/?think>|<\/?answer>)[\s\S])*<\/answer>\s*$/

/** 1 for `<think>...</think><answer>...</answer>` and nothing else, 0 otherwise (arXiv 2506.13404 has -1: the same advantages). */
export const formatReward = (completions: readonly RewardInput[]): number[] =>
  completions.map(({ completion }) => (thoughtAndAnswer.test(completion) ? 1 : 0))
