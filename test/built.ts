import { readdirSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

// The command line and the library as users have them: from dist/ where that is newer than all sources, since it starts in a third
// of the time; else from the sources.

const root = fileURLToPath(new URL('..', import.meta.url))

function newest(folder: string): number {
  const files = readdirSync(`${root}${folder}`, { recursive: true, withFileTypes: true }).filter((f) => f.isFile())
  return Math.max(...files.map(({ parentPath, name }) => statSync(`${parentPath}/${name}`).mtimeMs))
}

const builtAt = statSync(`${root}dist/sdk/index.js`, { throwIfNoEntry: false })?.mtimeMs ?? 0
export const isBuilt = ['sdk', 'targets', 'kernels-as', 'kernels-wgsl', 'models'].every((f) => newest(f) < builtAt)

/** What follows `node` on the command line, before what follows `halfling`. */
export const cli = isBuilt
  ? [`${root}dist/sdk/cli/bin.js`]
  : ['--import', import.meta.resolve('tsx'), `${root}sdk/cli/bin.ts`]
export const library = `${root}${isBuilt ? 'dist/sdk/index.js' : 'sdk/index.ts'}`
