import { extractAnswer, sameAnswer } from './answer.ts'
import { goldAnswer } from './exact-match.ts'
import { findAnswer } from './find-answer.ts'
import { grade } from './grade.ts'

/** What an answer is worth. */
export interface Graded {
  /** The final answer in the text, or null. */
  readonly answer: string | null
  readonly correct: boolean
}

/** How answers are judged. */
export interface Grader {
  /** The right answer alone, where the row has a whole solution. */
  gold(answer: string): string
  grade(gold: string, text: string): Promise<Graded>
}

export const graders = {
  /** By mathematical value. */
  math: {
    gold: (answer) => findAnswer(answer) ?? answer.trim(),
    async grade(gold, text) {
      const { extracted, equal } = await grade(gold, text)
      return { answer: extracted, correct: equal }
    },
  },
  /** As evaluateExactMatch does. */
  exact: {
    gold: goldAnswer,
    async grade(gold, text) {
      const answer = extractAnswer(text)
      return { answer, correct: answer !== null && sameAnswer(answer, gold) }
    },
  },
} as const satisfies Record<string, Grader>

export type GraderName = keyof typeof graders
