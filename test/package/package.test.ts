import { execFile, execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { builtinModules } from 'node:module'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { parquetWriteBuffer } from 'hyparquet-writer'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { LanguageModel, loadModel } from '../../sdk/index.ts'
import { noBrowser, openBrowser } from '../browser/browser.ts'
import { isBuilt } from '../built.ts'

// What a stranger gets: the packed file, installed in an empty project, on every Node that we promise.

const run = promisify(execFile)
const root = resolve('.')
let folder: string
let app: string
let installSeconds: number

/** npm as a person calls it, not as the npm that runs these tests would like it. */
const env = Object.fromEntries(
  Object.entries(process.env).filter(([key]) => !/^(npm_|NODE_OPTIONS$|NODE_PATH$|VITEST|HALFLING)/i.test(key)),
)
const npm = (args: string[], cwd: string) =>
  run('npm', [...args, '--no-audit', '--no-fund', '--prefer-offline'], { cwd, env })

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halfling-package-'))
  app = join(folder, 'app')
  await mkdir(app)
  if (!isBuilt) execFileSync(process.execPath, ['build.mjs'], { cwd: root })
  const packed = await npm(['pack', '--ignore-scripts', '--json', '--pack-destination', folder], root)
  const report = JSON.parse(packed.stdout)
  const { filename } = Array.isArray(report) ? report[0] : (Object.values(report)[0] as { filename: string })
  await writeFile(join(app, 'package.json'), '{ "name": "app", "private": true, "type": "module" }')
  const start = performance.now()
  await npm(['install', join(folder, filename)], app)
  installSeconds = (performance.now() - start) / 1000
}, 300_000)
afterAll(() => rm(folder, { recursive: true, force: true }))

const script = `
import { grade, loadModel, SFTTrainer, LanguageModel } from 'halfling'
const model = await loadModel()
const { text } = await LanguageModel.complete(model.chat([{ role: 'user', content: 'What is 17 + 25?' }], { temperature: 0 }))
const trainer = new SFTTrainer({
  model, trainDataset: 'rows.parquet', peft: { r: 4 }, args: { outputDir: process.argv[2], maxSteps: 2 },
})
const losses = []
for await (const log of trainer.train()) losses.push(log.loss)
const { equal } = await grade('x + 1', '1 + x')
console.log(JSON.stringify({ text, losses, equal, threads: model.model.target.info.threads, node: process.version }))
await model.close()
`

/** The model by its URL, as a person writes it. */
const page = `
import { grade, LanguageModel, loadModel, urlFolder } from 'halfling'
globalThis.answer = async (how) => {
  const url = new URL('nano/', location.href)
  const lm = await loadModel(how === 'kept' ? url.href : urlFolder(url), { device: 'wasm', threads: 2 })
  const options = { temperature: 0, maxNewTokens: 32 }
  const { tokenIds } = await LanguageModel.complete(lm.chat([{ role: 'user', content: 'What is 17 + 25?' }], options))
  const { threads, features } = lm.model.target.info
  await lm.close()
  const { equal } = await grade('x + 1', '1 + x')
  return { tokenIds, threads, features, equal }
}
`

/** With a thread for the rows, and one that compares answers. */
async function runScript(node: string): Promise<{ text: string; losses: number[]; equal: boolean; node: string }> {
  await writeFile(join(app, 'script.mjs'), script)
  const columnData = ['prompt', 'completion'].map((name) => ({ name, data: [name], type: 'STRING' as const }))
  await writeFile(join(app, 'rows.parquet'), Buffer.from(parquetWriteBuffer({ columnData })))
  const { stdout } = await run(node, ['script.mjs', await mkdtemp(join(folder, 'adapter-'))], { cwd: app, env })
  return JSON.parse(stdout)
}

describe('the packed file in an empty project', () => {
  it('npx halfling chat answers with the model in the package', async () => {
    const start = performance.now()
    const { stdout } = await run('npx', ['halfling', 'chat', '--prompt', 'What is 17 + 25?', '--json'], {
      cwd: app,
      env,
    })
    const seconds = installSeconds + (performance.now() - start) / 1000
    expect(JSON.parse(stdout).text).toContain('<answer>42</answer>')
    console.log(
      `npm i to the last token of the first answer: ${seconds.toFixed(1)} s (npm i ${installSeconds.toFixed(1)} s)`,
    )
    expect((await run('npx', ['halfling', '--version'], { cwd: app, env })).stdout.trim()).toBe(
      JSON.parse(readFileSync('package.json', 'utf8')).version,
    )
  })

  it(`chats and trains from code on Node ${process.version}`, async () => {
    const { text, losses, equal } = await runScript(process.execPath)
    expect(equal).toBe(true)
    expect(text).toContain('<answer>42</answer>')
    expect(losses).toHaveLength(2)
    expect(losses[1]).toBeLessThan(losses[0])
  })

  it.each(['20', '22', '24'].filter((major) => !process.version.startsWith(`v${major}.`)))(
    'the same on Node %s',
    async (major) => {
      const at = join(folder, `node-${major}`)
      await mkdir(at)
      await writeFile(join(at, 'package.json'), '{ "private": true }')
      // The npm package `node` only finds the one of the platform.
      const name = `node-${process.platform}-${process.arch}`
      await npm(['install', `${name}@${major}`], at)
      const { text, losses, equal, node } = await runScript(join(at, 'node_modules', name, 'bin/node'))
      expect(equal).toBe(true)
      expect(node).toMatch(new RegExp(`^v${major}\\.`))
      expect(text).toContain('<answer>42</answer>')
      expect(losses[1]).toBeLessThan(losses[0])
    },
    300_000,
  )

  it.each([
    ['bundler', 'esnext'],
    ['nodenext', 'nodenext'],
  ])('its types hold in a strict project, moduleResolution %s', async (moduleResolution, module) => {
    await writeFile(
      join(app, 'typed.ts'),
      `import { loadModel, SFTTrainer, type LanguageModel } from 'halfling'
const model: LanguageModel = await loadModel(undefined, { dtype: 'q8', onDeviceLost: () => {} })
for await (const piece of model.chat([{ role: 'user', content: 'Hello' }])) piece.text.trim()
const trainer = new SFTTrainer({ model, trainDataset: 'rows.jsonl', args: { outputDir: 'out', learningRate: 1e-3 } })
for await (const log of trainer.train()) if ('loss' in log) log.loss.toFixed(2)
// @ts-expect-error: no such argument
new SFTTrainer({ model, trainDataset: 'rows.jsonl', args: { outputDir: 'out', learningrate: 1e-3 } })
// @ts-expect-error: no such type of weights
await loadModel('x', { dtype: 'q3' })
`,
    )
    const options = [
      '--noEmit',
      '--strict',
      '--skipLibCheck',
      '--target',
      'es2022',
      '--lib',
      'es2023,dom',
      '--types',
      'node',
    ]
    const types = ['--typeRoots', join(root, 'node_modules/@types')]
    const tsc = join(root, 'node_modules/typescript/bin/tsc')
    const args = [tsc, ...options, ...types, '--moduleResolution', moduleResolution, '--module', module, 'typed.ts']
    await run(process.execPath, args, { cwd: app, env }).catch((error) => expect.fail(error.stdout))
  })

  it('brings no compiler along, and imports nothing that it does not depend on', () => {
    const installed = readdirSync(join(app, 'node_modules'))
    for (const name of ['tsx', 'typescript', 'assemblyscript', 'esbuild', 'vitest'])
      expect(installed).not.toContain(name)
    const { dependencies } = JSON.parse(readFileSync('package.json', 'utf8'))
    const dist = join(app, 'node_modules/halfling/dist')
    const files = readdirSync(dist, { recursive: true, encoding: 'utf8' }).filter((name) => /\.m?js$/.test(name))
    expect(files.length).toBeGreaterThan(100)
    for (const file of files) {
      const text = readFileSync(join(dist, file), 'utf8').replace(/^\s*(\/\/|\*).*$/gm, '')
      for (const [, name] of text.matchAll(
        /(?:^import |^(?:import|export) [^'"=(]*? from |import\()['"]([^'"./][^'"]*)['"]/gm,
      )) {
        const bare = name
          .split('/')
          .slice(0, name.startsWith('@') ? 2 : 1)
          .join('/')
        const known = name.startsWith('node:') || builtinModules.includes(name) || Object.hasOwn(dependencies, bare)
        expect(known, `${file} imports ${name}`).toBe(true)
      }
    }
    expect(readdirSync(join(dist, 'kernels-as/dist'))).toEqual(
      ['', '-relaxed', '-single', '-single-relaxed'].map((build) => `kernels${build}.wasm`).sort(),
    )
  })

  it('importing it does nothing: a bundle of the bare import is empty', async () => {
    const { build } = await import('vite')
    await writeFile(join(app, 'bare.mjs'), "import 'halfling'\n")
    const bundle = (input: string) =>
      build({
        root: app,
        logLevel: 'silent',
        configFile: false,
        build: {
          write: false,
          minify: false,
          lib: { entry: join(app, input), formats: ['es'] },
          rollupOptions: { external: /^node:/ },
        },
      }) as unknown as Promise<{ output: { code: string }[] }[]>
    const [bare] = await bundle('bare.mjs')
    expect(bare.output[0].code.replace(/^\s*(\/\/|\/\*).*$/gm, '').trim()).toBe('')
    // One name brings what it needs and no more.
    await writeFile(join(app, 'one.mjs'), "import { OptionError } from 'halfling'\nconsole.log(OptionError)\n")
    const [one] = await bundle('one.mjs')
    expect(one.output[0].code.length).toBeLessThan(4000)
  }, 60_000)

  it.skipIf(noBrowser).each(['built', 'dev server'])(
    `computes on threads in a page of Vite without configuration: %s${noBrowser ? ` (${noBrowser})` : ''}`,
    async (how) => {
      const { build, createServer, preview } = await import('vite')
      const site = join(app, 'site')
      await cp('models/nano', join(site, 'public/nano'), { recursive: true })
      await writeFile(join(site, 'index.html'), '<!doctype html><script type="module" src="/main.js"></script>')
      await writeFile(join(site, 'main.js'), page)
      const headers = {
        'Cross-Origin-Opener-Policy': 'same-origin',
        'Cross-Origin-Embedder-Policy': 'require-corp',
      }
      const settings = { root: site, configFile: false, logLevel: 'silent' } as const
      const own = { headers, port: 0, host: '127.0.0.1' }
      if (how === 'built') await build(settings)
      const server =
        how === 'built'
          ? await preview({ ...settings, preview: own })
          : await (await createServer({ ...settings, server: own })).listen()
      const browser = await openBrowser()
      try {
        const tab = await browser.newPage()
        const told: string[] = []
        tab.on('pageerror', (error) => told.push(error.message))
        await tab.goto(server.resolvedUrls!.local[0])
        await tab.waitForFunction('typeof answer === "function"')
        const lm = await loadModel('nano', { device: 'wasm', threads: 2 })
        const here = await LanguageModel.complete(
          lm.chat([{ role: 'user', content: 'What is 17 + 25?' }], { temperature: 0, maxNewTokens: 32 }),
        )
        await lm.close()
        for (const how of ['read', 'kept'])
          expect(await tab.evaluate(`answer('${how}')`), how).toEqual({
            tokenIds: here.tokenIds,
            threads: 2,
            features: ['relaxed-simd', 'threads'],
            equal: true,
          })
        expect(told).toEqual([])
      } finally {
        await browser.close()
        await server.close()
      }
    },
    60_000,
  )
})
