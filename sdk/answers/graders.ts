import { extractAnswer, goldAnswer, sameAnswer } from './extract.ts'
import { goldOf } from './find-answer.ts'
import { grade } from './grade.ts'

/** What an answer is worth. */
export interface Graded {
  /** The final answer in the text, or null. */
  readonly answer: string | null
  readonly correct: boolean
}

/** How answers are judged. */
export interface Grader {
  /** The right answer of a row alone, which may have a whole solution. */
  gold(right: string): string
  grade(right: string, text: string): Promise<Graded>
}

export const graders = {
  /** By mathematical value. */
  math: {
    gold: goldOf,
    async grade(right, text) {
      const { extracted, equal } = await grade(right, text)
      return { answer: extracted, correct: equal }
    },
  },
  /** As it is written, numbers by value. */
  exact: {
    gold: goldAnswer,
    async grade(right, text) {
      const answer = extractAnswer(text)
      return { answer, correct: answer !== null && sameAnswer(answer, goldAnswer(right)) }
    },
  },
} as const satisfies Record<string, Grader>

export type GraderName = keyof typeof graders
