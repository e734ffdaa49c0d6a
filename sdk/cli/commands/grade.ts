import type { Command } from 'commander'
import { grade } from '../../answers/grade.ts'
import { addJson, type JsonFlag } from '../options.ts'
import { print, printJson } from '../output.ts'

interface Flags extends JsonFlag {
  readonly gold: string
  readonly answer: string
}

export function addGrade(program: Command): void {
  const command = program
    .command('grade')
    .description('whether an answer is the right one, by its mathematical value: 1/2 is 0.5 is 50%')
    .requiredOption('--gold <text>', 'the right answer, or a solution that gives it')
    .requiredOption('--answer <text>', "a model's text: its final answer is looked for")
  addJson(command).action(async ({ gold, answer, json }: Flags) => {
    const result = await grade(gold, answer)
    if (json) return printJson(result)
    print(`equal      ${result.equal ? 'yes' : 'no'}`)
    print(`extracted  ${result.extracted ?? '-'}`)
    print(`reason     ${result.reason}`)
  })
}
