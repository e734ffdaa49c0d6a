import { cacheRoot } from './hub/settings.ts'
import { measureWorkload } from './speed.ts'
import { join } from './store/path.ts'
import { type Store, storeAt } from './store/store.ts'
import { jsonChunks, readJson } from './store/text.ts'
import type { Target, Workload } from './target.ts'

const file = 'speeds.json'

/** Beside the models of the hub's cache. */
const remembered = async (): Promise<Store> => storeAt(join(await cacheRoot(), '..', 'halfling'))

/**
 * Tokens in a second of a workload on a target (speed.ts), as it was measured here before: by device, version, threads and engine. Measured for
 * up to two seconds a workload where it is new; where nothing can be written, each time.
 */
export async function speedAt(target: Target, workload: Workload): Promise<number> {
  const { description, threads } = target.info
  const key = `${target.name}, ${description}, ${threads} threads, Node ${process.version}, ${workload}`
  const store = await remembered()
  const known = await readJson(store, file).catch(() => null)
  const before = known?.[key]
  if (typeof before === 'number' && before > 0) return before
  const measured = await measureWorkload(target, workload)
  await store.write(file, jsonChunks({ ...known, [key]: measured })).catch(() => {})
  return measured
}
