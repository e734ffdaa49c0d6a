import { makeProblem, type Problem } from '../nano/problems.ts'

// Word problems told from the end, which nano is bad at: as many as wanted, the same ones for everybody.

/** Other seeds than nano's own training and tests. */
const [trainSeed, testSeed] = [4, 5]
const problems = (seed: number, count: number): Problem[] =>
  Array.from({ length: count }, (_, i) => ({ ...makeProblem('backward', seed, i) }))

const made: Problem[] = []

export function trainingProblems(count: number): Problem[] {
  while (made.length < count) made.push({ ...makeProblem('backward', trainSeed, made.length) })
  return made.slice(0, count)
}
export const heldOutProblems = (count: number): Problem[] => problems(testSeed, count)

export const suggestions: readonly string[] = [
  'Mia has 14 apples. She buys 9 more. Then she gives 5 to Tom. How many apples does Mia have now?',
  'What is 17 + 25?',
  problems(testSeed, 1)[0].question,
]
