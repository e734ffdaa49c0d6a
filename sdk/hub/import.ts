import { OptionError } from '../errors.ts'
import { join } from '../store/path.ts'
import { isBundled } from './bundled.ts'
import { chooseModelFiles } from './choose.ts'
import { withLock } from './lock.ts'
import { cache } from './settings.ts'
import type { PullOptions } from './snapshot.ts'
import { askToKeep, checkSpace } from './space.ts'

/** Our own folder in the cache: halfling-imported/<name>/<file>. */
export const importedFolder = 'halfling-imported'

const isName = (name: string): boolean => /^[\p{L}\p{N}_][\p{L}\p{N}_.-]{0,99}$/u.test(name)

/**
 * Copies files that a page was given (dropped, or of an <input type="file">) to where loadModel and listModels find them by `name`:
 * one .gguf file, or the files of a Hugging Face folder or of an adapter. Files that we do not read are left out. The model is there
 * whole or not at all.
 *
 * @returns the path of the model
 * @throws OptionError for a name that is taken, or files that are no model; HalflingError of code 'io' when there is no room
 */
export async function importModel(
  files: Iterable<File>,
  name: string,
  { onProgress, signal }: Pick<PullOptions, 'onProgress' | 'signal'> = {},
): Promise<string> {
  if (!isName(name) || isBundled(name))
    throw new OptionError(`${name}: is no name for a model: letters, digits, '.', '_' and '-', and not a bundled one's`)
  const byName = new Map([...files].map((file) => [file.name, file]))
  const ggufs = [...byName.keys()].filter((file) => /\.gguf$/i.test(file))
  const chosen = ggufs.length === 1 ? ggufs : chooseModelFiles({ id: name, file: null }, [...byName.keys()])
  const totalBytes = chosen.reduce((sum, file) => sum + byName.get(file)!.size, 0)
  const store = await cache()
  const folder = join(importedFolder, name)
  askToKeep()
  return withLock(
    store,
    `${folder}.lock`,
    signal,
    async () => {},
    async () => {
      if (await findImported(name)) throw new OptionError(`${name}: is there already: removeModel('${name}') first`)
      // Of an import that was cut off.
      for (const { name: other } of await store.list(importedFolder))
        if (other === name || other.startsWith(`${name}.tmp-`)) await store.remove(join(importedFolder, other))
      await checkSpace(name, store, totalBytes)
      let loadedBytes = 0
      async function* chunksOf(file: File): AsyncGenerator<Uint8Array> {
        const reader = file.stream().getReader()
        for (;;) {
          signal?.throwIfAborted()
          const { done, value } = await reader.read()
          if (done) return
          yield value
          loadedBytes += value.length
          onProgress?.({ file: file.name, loadedBytes, totalBytes })
        }
      }
      // What tells that the model is whole comes last.
      const files = chosen.toSorted((a, b) => Number(tells.test(a)) - Number(tells.test(b)))
      await store.write(folder, new Map(files.map((file) => [file, chunksOf(byName.get(file)!)])))
      return (await findImported(name))!
    },
  )
}

const tells = /^(adapter_)?config\.json$/

/** The path of a model that was imported; null where there is none that is whole. */
export async function findImported(name: string): Promise<string | null> {
  if (!isName(name)) return null
  const store = await cache()
  const folder = join(importedFolder, name)
  const names = (await store.list(folder)).map((entry) => entry.name)
  if (names.some((file) => tells.test(file))) return join(store.name, folder)
  const gguf = names.find((file) => /\.gguf$/i.test(file))
  return gguf ? join(store.name, folder, gguf) : null
}
