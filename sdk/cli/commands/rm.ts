import type { Command } from 'commander'
import { removeModel } from '../../hub/list.ts'
import { addJson, type JsonFlag } from '../options.ts'
import { formatNumber, print, printJson } from '../output.ts'

interface Flags extends JsonFlag {
  readonly dataset?: boolean
}

export function addRm(program: Command): void {
  const command = program
    .command('rm')
    .description('deletes a model or a dataset from the cache, with all its revisions')
    .argument('<name>', 'as `halfling list` tells it')
    .option('--dataset', 'a dataset')
  addJson(command).action(async (name: string, { dataset, json }: Flags) => {
    const freedBytes = await removeModel(name, { kind: dataset ? 'dataset' : 'model' })
    if (json) printJson({ name, freedBytes })
    else print(`${name}: ${formatNumber(freedBytes / 1e6)} MB are free again`)
  })
}
