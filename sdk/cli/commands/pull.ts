import type { Command } from 'commander'
import { pullModel } from '../../hub/models.ts'
import { pullDataset } from '../../hub/rows.ts'
import type { PullProgress } from '../../hub/snapshot.ts'
import { Interrupted } from '../errors.ts'
import { interruptible } from '../interrupt.ts'
import { addJson, type JsonFlag } from '../options.ts'
import { formatNumber, print, printJson } from '../output.ts'
import { Progress } from '../progress.ts'

interface Flags extends JsonFlag {
  readonly revision?: string
  readonly dataset?: boolean
}

export function addPull(program: Command): void {
  const command = program
    .command('pull')
    .description('downloads a model or a dataset into the cache (HF_HUB_CACHE); goes on with what was interrupted')
    .argument(
      '<name>',
      'org/name, org/name@revision, org/name/file.gguf or https://host/file.gguf[#sha256=...]; ' +
        'with --dataset org/name[/folder][:split] or org/name/file.parquet',
    )
    .option('--revision <name>', 'branch, tag or commit (default: main)')
    .option('--dataset', 'a dataset: the files of one split (default: train)')
  addJson(command).action(async (name: string, { revision, dataset, json }: Flags) => {
    const isDataset = dataset || /\.(parquet|jsonl?)([#@].*)?$/i.test(name)
    const progress = new Progress(`pulling ${name}`)
    const speed = new Speed()
    const onProgress = ({ file, loadedBytes, totalBytes }: PullProgress) => {
      const mb = `${formatNumber(loadedBytes / 1e6)} of ${formatNumber(totalBytes / 1e6)} MB`
      progress.update(loadedBytes, totalBytes, `${mb} | ${speed.of(loadedBytes)} MB/s | ${file}`, loadedBytes)
    }
    const paths = await interruptible(async (signal) => {
      const options = { revision, onProgress, signal }
      try {
        return isDataset ? await pullDataset(name, options) : [await pullModel(name, options)]
      } catch (error) {
        throw error instanceof Interrupted ? new Interrupted('interrupted: the same command goes on from here') : error
      } finally {
        progress.end()
      }
    })
    if (json) printJson({ name, paths })
    else for (const path of paths) print(path)
  })
}

/** Megabytes a second since the first report: what was here before does not count. */
class Speed {
  private first: { bytes: number; time: number } | undefined

  of(bytes: number): string {
    const time = performance.now()
    this.first ??= { bytes, time }
    const seconds = (time - this.first.time) / 1000
    return seconds > 0 ? formatNumber((bytes - this.first.bytes) / 1e6 / seconds) : '-'
  }
}
