import { createRequire } from 'node:module'
import { Command } from 'commander'
import { addBench } from './commands/bench.ts'
import { addChat } from './commands/chat.ts'
import { addDevices } from './commands/devices.ts'
import { addDistill } from './commands/distill.ts'
import { addEval } from './commands/eval.ts'
import { addExport } from './commands/export.ts'
import { addGenerate } from './commands/generate.ts'
import { addGrade } from './commands/grade.ts'
import { addGrpo } from './commands/grpo.ts'
import { addInspect } from './commands/inspect.ts'
import { addList } from './commands/list.ts'
import { addMerge } from './commands/merge.ts'
import { addPull } from './commands/pull.ts'
import { addQuantize } from './commands/quantize.ts'
import { addRm } from './commands/rm.ts'
import { addScore } from './commands/score.ts'
import { addServe } from './commands/serve.ts'
import { addSetup } from './commands/setup.ts'
import { addSft } from './commands/sft.ts'
import { addTeacher } from './commands/teacher.ts'
import { kebabFlag } from './names.ts'
import { log, printFailure } from './output.ts'

/** Runs `halfling <command> ...`. Returns the exit code: 0, 1 for errors, 2 for wrong usage, 130 after Ctrl-C. */
export async function main(argv: readonly string[]): Promise<number> {
  // Standard output belongs to results alone.
  console.log = console.info = console.error
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))
  const program = commands()
  if (argv.length === 0) {
    log(program.helpInformation())
    return 2
  }
  try {
    await program.parseAsync(argv.map(kebabFlag), { from: 'user' })
    return 0
  } catch (error) {
    return printFailure(error, argv.includes('--json'))
  }
}

function commands(): Command {
  const { version } = createRequire(import.meta.url)('halfling/package.json')
  const program = new Command('halfling')
    .description('Runs and trains reasoning language models of about half a billion parameters.')
    .version(version)
    .exitOverride()
    // printFailure tells about errors.
    .configureOutput({ writeErr: () => {} })
  addDevices(program)
  addSetup(program)
  addChat(program)
  addGenerate(program)
  addScore(program)
  addSft(program)
  addDistill(program)
  addGrpo(program)
  addTeacher(program)
  addServe(program)
  addEval(program)
  addGrade(program)
  addInspect(program)
  addBench(program)
  addQuantize(program)
  addMerge(program)
  addExport(program)
  addPull(program)
  addList(program)
  addRm(program)
  return program
}
