// What `npm pack` packs: dist/ holds sdk/ and targets/ as JavaScript with their types, and the files that they load at run time, in
// the places where the sources have them. The kernels are built first (kernels-as/build.mjs).
import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

process.chdir(fileURLToPath(new URL('.', import.meta.url)))
rmSync('dist', { recursive: true, force: true })
execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json'], { stdio: 'inherit' })
chmodSync('dist/sdk/cli/bin.js', 0o755)
for (const loaded of ['kernels-as/dist', 'models']) cpSync(loaded, `dist/${loaded}`, { recursive: true })
