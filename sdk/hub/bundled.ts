import { HubError } from '../errors.ts'
import { isNode } from '../runtime.ts'
import { bytesSource } from '../store/byte-source.ts'
import { filesOf } from '../store/sources.ts'
import { type Source, storeAt } from '../store/store.ts'

// Written out, so that bundlers find the files.
const files = {
  nano: {
    'config.json': new URL('../../models/nano/config.json', import.meta.url),
    'generation_config.json': new URL('../../models/nano/generation_config.json', import.meta.url),
    'tokenizer.json': new URL('../../models/nano/tokenizer.json', import.meta.url),
    'tokenizer_config.json': new URL('../../models/nano/tokenizer_config.json', import.meta.url),
    'model.safetensors': new URL('../../models/nano/model.safetensors', import.meta.url),
  },
  'nano-base': {
    'config.json': new URL('../../models/nano-base/config.json', import.meta.url),
    'generation_config.json': new URL('../../models/nano-base/generation_config.json', import.meta.url),
    'tokenizer.json': new URL('../../models/nano-base/tokenizer.json', import.meta.url),
    'tokenizer_config.json': new URL('../../models/nano-base/tokenizer_config.json', import.meta.url),
    'model.safetensors': new URL('../../models/nano-base/model.safetensors', import.meta.url),
  },
} as const

type BundledName = keyof typeof files

/** Models that come with the package; the first is the default of every command. */
export const bundledModels = ['nano', 'nano-base'] as const satisfies readonly BundledName[]

export const isBundled = (name: string): name is BundledName => Object.hasOwn(files, name)

/** The folder of a bundled model. Node's alone: a page has its files by their addresses. */
export async function bundledFolder(name: BundledName): Promise<string> {
  const { fileURLToPath } = await import('node:url')
  const config = fileURLToPath(files[name]['config.json'])
  if (!(await (await storeAt(config)).open('')))
    throw new HubError(
      `the model "${name}" belongs to the package, but its folder models/${name} is not there: install it again`,
    )
  return config.replace(/[\\/]config\.json$/, '')
}

/** A bundled model; in a page its files come from where the page came from. */
export async function bundledModel(name: BundledName): Promise<Source> {
  if (isNode) return storeAt(await bundledFolder(name))
  const urls: Readonly<Record<string, URL>> = files[name]
  return filesOf(
    name,
    () => Object.keys(urls),
    async (file) => {
      if (!Object.hasOwn(urls, file)) return null
      const answer = await fetch(urls[file]).catch((cause) => {
        throw new HubError(`${urls[file]}: cannot be reached (${(cause as Error).message})`, { cause })
      })
      if (!answer.ok) throw new HubError(`${urls[file]}: ${answer.status} ${answer.statusText}`)
      return bytesSource(`${name}/${file}`, new Uint8Array(await answer.arrayBuffer()))
    },
  )
}
