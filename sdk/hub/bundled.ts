import { HubError } from '../errors.ts'

/** Models that come with the package; the first is the default of every command. */
export const bundledModels = ['nano', 'nano-base'] as const

export const isBundled = (name: string): boolean => (bundledModels as readonly string[]).includes(name)

/** The folder of a bundled model: models/ lies beside sdk/, or beside the dist/ that holds it. */
export async function bundledFolder(name: string): Promise<string> {
  const [{ access }, { fileURLToPath }] = await Promise.all([import('node:fs/promises'), import('node:url')])
  for (const up of ['../..', '../../..']) {
    const folder = fileURLToPath(new URL(`${up}/models/${name}`, import.meta.url))
    const isThere = await access(`${folder}/config.json`).then(
      () => true,
      () => false,
    )
    if (isThere) return folder
  }
  throw new HubError(
    `the model "${name}" belongs to the package, but its folder models/${name} is not there: install it again`,
  )
}
