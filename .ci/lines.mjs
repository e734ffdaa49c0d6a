// Lines of source by folder, so that growth is seen.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

const files = execFileSync('git', ['ls-files', '*.ts', '*.mjs', '*.js', '*.wgsl'], { encoding: 'utf8' })
  .trim()
  .split('\n')
const lines = new Map()
for (const file of files) {
  const parts = file.split('/')
  const folder =
    parts.length > 2 && parts[0] === 'sdk' ? parts.slice(0, 2).join('/') : parts.length > 1 ? parts[0] : '.'
  lines.set(folder, (lines.get(folder) ?? 0) + readFileSync(file, 'utf8').split('\n').length)
}
for (const [folder, count] of [...lines].sort()) console.log(`${String(count).padStart(7)}  ${folder}`)
console.log(`${String([...lines.values()].reduce((a, b) => a + b, 0)).padStart(7)}  lines`)
