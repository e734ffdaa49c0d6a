import type { Command } from 'commander'
import { listModels } from '../../hub/list.ts'
import { cacheRoot } from '../../hub/settings.ts'
import { addJson, type JsonFlag } from '../options.ts'
import { formatNumber, log, print, printJson } from '../output.ts'

export function addList(program: Command): void {
  const command = program
    .command('list')
    .description('the models and datasets on this disk: bundled, and in the cache (HF_HUB_CACHE)')
  addJson(command).action(async ({ json }: JsonFlag) => {
    const [cache, models] = await Promise.all([cacheRoot(), listModels()])
    if (json) return printJson({ cache, models })
    const width = Math.max(0, ...models.map(({ name }) => name.length))
    for (const { name, kind, bytes, incompleteBytes, modified } of models) {
      const size = `${formatNumber(bytes / 1e6)} MB`.padStart(12)
      const rest = incompleteBytes > 0 ? '  not whole: pull it again' : ''
      print(`${name.padEnd(width)}  ${kind.padEnd(7)}${size}  ${modified.toISOString().slice(0, 10)}${rest}`)
    }
    log(`cache: ${cache}`)
  })
}
