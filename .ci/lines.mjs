// Lines of code by folder, without blank lines and comments. What ships has a budget: raising it needs a reason in docs/log.md.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

const budget = 35_100
const budgeted = ['sdk', 'targets', 'kernels-as', 'kernels-wgsl']

/** A line that begins with a comment, or lies within one, is none of code. */
function codeLines(text) {
  let [lines, isComment] = [0, false]
  for (const line of text.split('\n').map((line) => line.trim())) {
    if (!isComment && line.startsWith('/*')) isComment = true
    if (!isComment && line !== '' && !line.startsWith('//')) lines++
    if (isComment && line.endsWith('*/')) isComment = false
  }
  return lines
}

const files = execFileSync('git', ['ls-files', '*.ts', '*.mjs', '*.js'], { encoding: 'utf8' }).trim().split('\n')
const lines = new Map()
let shipped = 0
for (const file of files) {
  const [top, second] = file.split('/')
  const own = codeLines(readFileSync(file, 'utf8'))
  const folder = top === 'sdk' && file.split('/').length > 2 ? `sdk/${second}` : file.includes('/') ? top : '.'
  lines.set(folder, (lines.get(folder) ?? 0) + own)
  if (budgeted.includes(top)) shipped += own
}
for (const [folder, count] of [...lines].sort()) console.log(`${String(count).padStart(7)}  ${folder}`)
console.log(`${String(shipped).padStart(7)}  of ${budget} lines of ${budgeted.join(', ')}`)
if (shipped > budget) {
  console.error(
    `over the budget by ${shipped - budget} lines: delete some, or raise it in .ci/lines.mjs with a reason in docs/log.md`,
  )
  process.exit(1)
}
