import { join } from '../store/path.ts'
import type { Entry, Source } from '../store/store.ts'

/** All files and links below a place, their names with the folders before them. */
export async function walk(source: Source, folder = ''): Promise<Entry[]> {
  const found: Entry[] = []
  for (const entry of await source.list(folder)) {
    const name = join(folder, entry.name)
    if (entry.kind === 'folder') found.push(...(await walk(source, name)))
    else found.push({ ...entry, name })
  }
  return found
}
