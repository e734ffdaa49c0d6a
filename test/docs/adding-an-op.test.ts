import { execFile, execFileSync } from 'node:child_process'
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { blocksOf } from './markdown.ts'

// docs/adding-an-op.md adds an op, file by file: done here in a copy of the sources, by the words of the page.
//
// ts new some/file    The whole file.
// ts into some/file   The first line stands there already; the others follow it.

const document = 'docs/adding-an-op.md'
const copied = [
  'sdk',
  'targets',
  'kernels-as',
  'kernels-wgsl',
  'test',
  'package.json',
  'tsconfig*.json',
  'vitest.config.ts',
]

it('an op is added by what the page says, on every target, and the page names every file', async () => {
  const root = await mkdtemp(join(tmpdir(), 'halfling-op-'))
  try {
    const files = execFileSync('git', ['ls-files', ...copied], { encoding: 'utf8' })
      .trim()
      .split('\n')
    for (const file of files) await cp(file, join(root, file))
    await symlink(resolve('node_modules'), join(root, 'node_modules'))

    const touched = new Set<string>()
    for (const { info, code } of blocksOf(document)) {
      const [, how, file] = /^ts (new|into) (\S+)$/.exec(info ?? '') ?? []
      if (!file) continue
      touched.add(file)
      const path = join(root, file)
      if (how === 'new') {
        await mkdir(dirname(path), { recursive: true })
        await writeFile(path, `${code}\n`, { flag: 'wx' })
        continue
      }
      const [anchor, ...rest] = code.split('\n')
      const lines = (await readFile(path, 'utf8')).split('\n')
      expect(
        lines.filter((line) => line === anchor),
        `${file}: ${anchor}`,
      ).toHaveLength(1)
      lines.splice(lines.indexOf(anchor) + 1, 0, ...rest)
      await writeFile(path, lines.join('\n'))
    }
    const table = [...(await readFile(document, 'utf8')).matchAll(/^\| `([^`]+)` \|/gm)].map(([, file]) => file)
    expect(table).toEqual([...touched])

    const run = (...args: string[]) =>
      promisify(execFile)(process.execPath, args, { cwd: root, env: { ...process.env, NO_COLOR: '1' } }).catch(
        (error) => {
          throw new Error(`${args.join(' ')}: ${error.stdout}${error.stderr}`)
        },
      )
    await run('kernels-as/build.mjs')
    // Every list that an op must be in is complete by its type.
    await run('node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json', '--noEmit')
    const report = join(root, 'report.json')
    const tests = ['test/ops', '-t', 'softcap', '--reporter=json', `--outputFile=${report}`]
    await run('node_modules/vitest/vitest.mjs', 'run', ...tests)
    const { testResults } = JSON.parse(await readFile(report, 'utf8')) as {
      testResults: { assertionResults: { fullName: string; status: string }[] }[]
    }
    const passed = testResults
      .flatMap(({ assertionResults }) => assertionResults)
      .filter(({ status }) => status === 'passed')
      .map(({ fullName }) => fullName)
    for (const where of ['reference', 'wasm, 1 threads', 'wasm, 2 threads', 'cpu', 'webgpu', 'central differences'])
      expect(
        passed.some((name) => name.includes(where) && name.includes('softcap')),
        where,
      ).toBe(true)
  } finally {
    await rm(root, { recursive: true, force: true })
  }
})
