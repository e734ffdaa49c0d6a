import { OptionError } from '../errors.ts'
import { fileSystem, join } from '../formats/file-system.ts'
import { writeFolderAtomically } from '../formats/node-file.ts'
import { isBundled } from './bundled.ts'
import { chooseModelFiles } from './choose.ts'
import { withLock } from './lock.ts'
import { cacheRoot } from './settings.ts'
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
  const root = join(await cacheRoot(), importedFolder)
  const folder = join(root, name)
  askToKeep()
  const fs = await fileSystem()
  await fs.mkdir(root, { recursive: true })
  return withLock(
    `${folder}.lock`,
    signal,
    async () => {},
    async () => {
      if (await findImported(name)) throw new OptionError(`${name}: is there already: removeModel('${name}') first`)
      // Of an import that was cut off.
      for (const entry of await fs.readdir(root))
        if (entry === name || entry.startsWith(`${name}.tmp-`)) await fs.rm(join(root, entry), { recursive: true })
      await checkSpace(name, root, totalBytes)
      let loadedBytes = 0
      async function* bytesOf(file: File): AsyncGenerator<Uint8Array> {
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
      await writeFolderAtomically(folder, new Map(chosen.map((file) => [file, bytesOf(byName.get(file)!)])))
      return (await findImported(name))!
    },
  )
}

/** The path of a model that was imported; null where there is none that is whole. */
export async function findImported(name: string): Promise<string | null> {
  if (!isName(name)) return null
  const folder = join(await cacheRoot(), importedFolder, name)
  const { readdir } = await fileSystem()
  const names = await readdir(folder).catch(() => [])
  if (names.some((file) => /^(adapter_)?config\.json$/.test(file))) return folder
  const gguf = names.find((file) => /\.gguf$/i.test(file))
  return gguf ? join(folder, gguf) : null
}
