// What `npm pack` packs: dist/ holds sdk/ and targets/ as JavaScript with their types, and what they load at run time, in
// the places where the sources have it. The kernels are built first (kernels-as/build.mjs).
import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

process.chdir(fileURLToPath(new URL('.', import.meta.url)))
rmSync('dist', { recursive: true, force: true })
execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json'], { stdio: 'inherit' })
chmodSync('dist/sdk/cli/bin.js', 0o755)
mkdirSync('dist/kernels-as/dist', { recursive: true })
const loaded = [
  'sdk/data/parquet-check.mjs',
  'sdk/data/parquet-worker.mjs',
  'sdk/eval/grade-worker.mjs',
  'sdk/eval/math-answer.mjs',
  'sdk/eval/math-latex.mjs',
  'sdk/eval/math-value.mjs',
  'targets/wasm/worker.mjs',
  'kernels-as/dist/kernels.wasm',
  'kernels-as/dist/kernels-single.wasm',
]
for (const file of loaded) cpSync(file, `dist/${file}`)

/** What bundlers go by stands in texts, which the compiler leaves as they are. */
const replaceIn = (file, from, to) => writeFileSync(file, readFileSync(file, 'utf8').replaceAll(from, to))
replaceIn('dist/sdk/browser/engine.js', "'./worker.ts'", "'./worker.js'")
// models/ is packed beside dist/.
replaceIn('dist/sdk/hub/bundled.js', "'../../models/", "'../../../models/")
