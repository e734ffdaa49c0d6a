import { afterEach, describe, expect, it, vi } from 'vitest'
import { type EvalProgress, evaluate } from '../../sdk/eval/evaluate.ts'
import { type BatchOptions, generateBatch } from '../../sdk/generate/batch.ts'
import type { LanguageModel } from '../../sdk/generate/language-model.ts'

vi.mock('../../sdk/generate/batch.ts', () => ({ generateBatch: vi.fn() }))

// What generateBatch was asked, and a model that answers with texts of the test, the last prompt first.
const asked: { prompts: readonly (readonly number[])[]; options: BatchOptions }[] = []
function answers(texts: readonly string[]): void {
  vi.mocked(generateBatch).mockImplementation(async function* (_lm, prompts, options = {}) {
    asked.push({ prompts, options })
    for (let index = texts.length - 1; index >= 0; index--)
      yield { index, sample: 0, text: texts[index], tokenIds: [1, 2], logProbs: [0, 0], finishReason: 'stop' as const }
  })
}

const codes = (text: string): number[] => [...text].map((c) => c.charCodeAt(0))
const any = {
  generationConfig: {},
  maxNewTokens: ({ maxNewTokens = 256 }) => maxNewTokens,
  model: { config: { maxPositionEmbeddings: 512 } },
}
const plain = { ...any, chatTemplate: null, encodePrompt: codes } as unknown as LanguageModel
const withTemplate = {
  ...any,
  chatTemplate: { sources: {}, specialTokens: {} },
  chatPrompt: (messages: readonly { role: string; content: string }[]) =>
    codes(messages.map((m) => `${m.role}:${m.content}`).join('|')),
} as unknown as LanguageModel
const promptText = (i: number) => String.fromCharCode(...asked.at(-1)!.prompts[i])

afterEach(() => {
  asked.length = 0
})

describe('evaluate with the grader exact', () => {
  it('grades answers by the rules of extract.ts, with GSM8K solutions as gold', async () => {
    answers(['So <answer>18</answer>', 'I do not know', 'The answer is 1,000.', '\\boxed{7}'])
    const rows = [
      { question: 'a', answer: '9 * 2 = <<9*2=18>>18\n#### 18' },
      { question: 'b', answer: '5' },
      { question: 'c', answer: '1000' },
      { question: 'd', answer: '8' },
    ]
    const progress: number[][] = []
    const onProgress = (p: EvalProgress) => progress.push([p.done, p.correct, p.tokens])
    const result = await evaluate(plain, rows, { grader: 'exact', onProgress })
    expect(result.items.map((item) => [item.index, item.gold, item.answer, item.correct])).toEqual([
      [0, '18', '18', true],
      [1, '5', null, false],
      [2, '1000', '1000', true],
      [3, '8', '7', false],
    ])
    expect(result).toMatchObject({ n: 4, correct: 2, accuracy: 0.5, standardError: 0.25 })
    expect(progress).toEqual([
      [1, 0, 2],
      [2, 1, 4],
      [3, 1, 6],
      [4, 2, 8],
    ])
  })

  it('asks greedily, as a question where there is no chat template', async () => {
    answers(['x'])
    await evaluate(plain, [{ question: '1 + 1?', answer: '2' }], { grader: 'exact' })
    expect(promptText(0)).toBe('Question: 1 + 1?\nAnswer:')
    expect(asked[0].options).toMatchObject({ temperature: 0, stop: ['\nQuestion:'] })
  })

  it('asks through the chat template, with what the caller wants', async () => {
    answers(['x'])
    const options = { system: 'Be brief.', temperature: 0.5, maxNewTokens: 9, slots: 3 }
    await evaluate(withTemplate, [{ question: '1 + 1?', answer: '2' }], { grader: 'exact', ...options })
    expect(promptText(0)).toBe('system:Be brief.|user:1 + 1?')
    expect(asked[0].options).toMatchObject({ temperature: 0.5, maxNewTokens: 9, slots: 3, stop: [] })
  })
})
