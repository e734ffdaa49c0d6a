import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { writeTinyModel } from '../../examples/tiny-model.ts'
import { aliases, sftKeys } from '../../sdk/cli/keys.ts'
import { readConfig } from '../../sdk/cli/settings.ts'
import { cli, library } from '../built.ts'
import { type Block, blocksOf, documents } from './markdown.ts'

// Every code block of README.md and docs/*.md is run, in a folder of its document, in order. By the fence's language:
//
// ts, json       A module, run with 'halfling' standing for our library; JSON is parsed.
// sh             Run by bash. `npx halfling` is our command line; training stops after two steps, an evaluation after two
//                rows. Of `npm run x`, `npx tsx x`, `npx vitest run x` and `python x` it is only checked that x exists.
// yaml           Read as the settings of `halfling sft`.
// text           Output or a listing: not run. An indented block is one too, unless it begins with npx or npm: then it is sh.
// ts new file, ts into file   Not run here: test/docs/adding-an-op.test.ts does what they say.
// ts some/file   An excerpt: the file must hold these lines, word for word. So too for any other language.
//
// Anything else fails. In the folder there are rows.jsonl, train.jsonl and test.jsonl, and a tiny model stands for every
// model that is not built in: for `path/to/...` and for names of the hub, which `halfling pull` is not asked for.

const root = resolve('.')
let [work, tiny] = ['', '']

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'halfling-docs-'))
  tiny = join(work, 'tiny-model')
  await writeTinyModel(tiny)
})
afterAll(() => rm(work, { recursive: true, force: true }))

/** A new folder as a reader's project. */
async function project(document: string): Promise<string> {
  const folder = join(work, document.replace('/', '-'))
  const installed = join(folder, 'node_modules/halfling')
  await mkdir(installed, { recursive: true })
  await writeFile(join(installed, 'package.json'), '{"type": "module", "exports": "./index.mjs"}')
  await writeFile(join(installed, 'index.mjs'), `export * from '${pathToFileURL(library)}'\n`)
  const rows = Array.from({ length: 8 }, (_, i) =>
    JSON.stringify({ question: `What is ${i} + 2?`, solution: `${i} + 2 = ${i + 2}`, answer: `${i + 2}` }),
  )
  for (const name of ['rows', 'train', 'test']) await writeFile(join(folder, `${name}.jsonl`), `${rows.join('\n')}\n`)
  return folder
}

const withTinyModel = (code: string): string => code.replace(/path\/to\/[\w.-]+|Qwen\/[\w.-]+/g, tiny)

function run(command: string, args: readonly string[], cwd: string): Promise<void> {
  return new Promise((done, fail) => {
    const child = spawn(command, args, { cwd, env: { ...process.env, HF_HOME: join(work, 'hub'), NO_COLOR: '1' } })
    let output = ''
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk) => {
        output += chunk
      })
    child.on('error', fail)
    child.on('close', (code) => (code === 0 ? done() : fail(new Error(`exit code ${code}\n${output}`))))
    // A command that reads nothing may be gone by then.
    child.stdin.on('error', () => {})
    child.stdin.end('What is 1 + 2?\n')
  })
}

const tsx = ['--import', import.meta.resolve('tsx')]

const shell = `
set -euo pipefail
halfling() {
  case "$1" in
    pull) shift; halfling_main pull --help; return ;;
    sft) set -- "$@" --max-steps 2 ;;
    eval) set -- "$@" --limit 2 --max-new-tokens 8 ;;
    chat | generate) set -- "$@" --max-new-tokens 8 ;;
    bench) set -- "$@" --prompt-tokens 8 --tokens 2 --train-tokens 16 --train-steps 1 ;;
  esac
  halfling_main "$@"
}
npx() {
  case "$1" in
    halfling) shift; halfling "$@" ;;
    tsx) [[ -f "$ROOT/$2" ]] ;;
    vitest) [[ "$2" == run && -e "$ROOT/$3" ]] ;;
    *) echo "npx $1 is not known to test/docs/code-blocks.test.ts"; return 1 ;;
  esac
}
python() { [[ -f "$ROOT/$1" ]]; }
npm() {
  case "$1" in
    ci | install | i | pack) ;;
    test) grep -q '"test":' "$ROOT/package.json" ;;
    run) grep -q "\\"$2\\":" "$ROOT/package.json" ;;
    *) echo "npm $1 is not known to test/docs/code-blocks.test.ts"; return 1 ;;
  esac
}
`

async function runShell(code: string, folder: string): Promise<void> {
  for (const line of code.split('\n'))
    if (!/^\s*([A-Z_]+=\S+ )*(npx |npm |python |#|--|$)/.test(line))
      throw new Error(`"${line}": only npx, npm and python are known here`)
  const main = `ROOT='${root}'; halfling_main() { node ${cli.join(' ')} "$@"; }`
  await run('bash', ['-c', `${shell}\n${main}\n${withTinyModel(code)}`], folder)
}

async function check(block: Block, folder: string): Promise<void> {
  const { info, code } = block
  if (/^ts (new|into) /.test(info ?? '')) return
  const [language, file] = (info ?? (/^(npx|npm) /.test(code) ? 'sh' : 'text')).split(' ')
  if (file !== undefined)
    return expect(await readFile(file, 'utf8'), `${file} does not hold these lines`).toContain(code)
  switch (language) {
    case 'ts': {
      const path = join(folder, `block-${block.line}.mts`)
      await writeFile(path, withTinyModel(code))
      // Rewards find nothing in what the tiny model says.
      return run('node', [...tsx, path], folder).catch((error: Error) => {
        if (!/no step has changed it/.test(error.message)) throw error
      })
    }
    case 'sh':
      return runShell(code, folder)
    case 'yaml': {
      const path = join(folder, `block-${block.line}.yaml`)
      await writeFile(path, code)
      expect(Object.keys(readConfig(path, sftKeys, aliases))).toHaveLength(Object.keys(parse(code)).length)
      return
    }
    case 'json':
      JSON.parse(code)
      return
    case 'text':
      return
    default:
      throw new Error(`code of language "${info}": use ts, sh, yaml, json or text, or name the file that it is from`)
  }
}

for (const document of documents()) {
  const blocks = blocksOf(document)
  if (blocks.length === 0) continue
  describe.sequential(document, () => {
    let folder = ''
    beforeAll(async () => {
      folder = await project(document)
    })
    for (const block of blocks) it(`${document}:${block.line} ${block.info ?? 'indented'}`, () => check(block, folder))
  })
}
