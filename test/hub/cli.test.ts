import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it, vi } from 'vitest'
import { writeTinyModel } from '../../examples/tiny-model.ts'
import { halfling, halflingJson } from '../cli/halfling.ts'
import { bytesOf, type Hub, sha256, startHub } from './server.ts'

// halfling pull, list and rm in processes of their own.

const commit = 'd'.repeat(40)
const tiny: Record<string, Uint8Array> = {}
let hub: Hub
let home: string
const weights = 'model.safetensors'
const snapshot = () => join(home, 'hub/models--org--tiny/snapshots', commit)
const incomplete = () => join(home, 'hub/models--org--tiny/blobs', `${sha256(tiny[weights])}.incomplete`)

beforeAll(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'halfling-tiny-'))
  await writeTinyModel(folder)
  for (const name of readdirSync(folder)) tiny[name] = readFileSync(join(folder, name))
  rmSync(folder, { recursive: true })
  hub = await startHub({
    'models/org/tiny': { commit, files: tiny },
    'datasets/org/rows': { commit, files: { 'train.jsonl': bytesOf('{"text": "a"}\n') } },
  })
})
afterAll(() => hub.close())
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'halfling-hub-'))
  for (const name of ['HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'HF_TOKEN', 'HF_TOKEN_PATH', 'HF_HUB_OFFLINE'])
    vi.stubEnv(name, '')
  vi.stubEnv('HF_HOME', home)
  vi.stubEnv('HF_ENDPOINT', hub.url)
  hub.asked.length = 0
  hub.trouble = null
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

it('pull, then generate by the name; list and rm', async () => {
  const pulled = await halfling(['pull', 'org/tiny'])
  expect(pulled).toMatchObject({ code: 0, stdout: `${snapshot()}\n` })
  const rows = await halflingJson(['pull', 'org/rows', '--dataset', '--revision', 'main'])
  expect(rows.value.paths).toEqual([join(home, 'hub/datasets--org--rows/snapshots', commit, 'train.jsonl')])

  vi.stubEnv('HF_HUB_OFFLINE', '1')
  const args = ['generate', '--model', 'org/tiny', '--prompt', 'a', '--max-new-tokens', '2', '--threads', '1']
  const { value } = await halflingJson(args)
  expect(value.tokenIds.length).toBeLessThanOrEqual(2)

  const { value: list } = await halflingJson(['list'])
  expect(list.cache).toBe(join(home, 'hub'))
  const model = list.models.find(({ name }: { name: string }) => name === 'org/tiny')
  expect(model).toMatchObject({ kind: 'model', incompleteBytes: 0 })
  const { stdout } = await halfling(['list'])
  expect(stdout).toMatch(/^org\/tiny +model +[\d.]+ MB +\d{4}-\d\d-\d\d$/m)
  expect(stdout).toMatch(/^nano +bundled/m)

  expect((await halflingJson(['rm', 'org/tiny'])).value).toEqual({ name: 'org/tiny', freedBytes: model.bytes })
  expect(await halfling(['rm', 'nano'])).toMatchObject({
    code: 1,
    stderr: 'error: nano: is bundled with the package and stays\n',
  })
  expect(readdirSync(join(home, 'hub'))).toEqual(['datasets--org--rows'])
})

it('Ctrl-C leaves a part that the next pull goes on with', async () => {
  hub.trouble = (_, response, path) => {
    if (path !== `/cdn/${sha256(tiny[weights])}`) return
    response.writeHead(200, { 'content-length': tiny[weights].length })
    response.write(tiny[weights].subarray(0, 90_000))
    return true
  }
  const interruptWhen = () => existsSync(incomplete()) && statSync(incomplete()).size === 90_000
  const stopped = await halfling(['pull', 'org/tiny'], { interruptWhen })
  expect(stopped).toMatchObject({ code: 130, stdout: '', stderr: 'interrupted: the same command goes on from here\n' })
  hub.trouble = null
  expect((await halfling(['pull', 'org/tiny'])).code).toBe(0)
  expect(hub.downloads().map(({ range }) => range)).toEqual([undefined, 'bytes=90000-'])
})

it('two processes that pull the same model at once', async () => {
  // Slow enough that both are there.
  hub.trouble = (_, response, path) => {
    if (path !== `/cdn/${sha256(tiny[weights])}`) return
    response.writeHead(200, { 'content-length': tiny[weights].length })
    response.write(tiny[weights].subarray(0, 50_000))
    setTimeout(() => response.end(tiny[weights].subarray(50_000)), 1500)
    return true
  }
  const both = await Promise.all([halfling(['pull', 'org/tiny']), halfling(['pull', 'org/tiny'])])
  for (const { code, stdout, stderr } of both)
    expect({ code, stdout, stderr }).toMatchObject({ code: 0, stdout: `${snapshot()}\n` })
  expect(hub.downloads()).toHaveLength(1)
  expect(readFileSync(join(snapshot(), weights)).equals(tiny[weights])).toBe(true)
})

it('errors are one line, or JSON', async () => {
  const { code, value } = await halflingJson(['pull', 'org/none'])
  expect(code).toBe(1)
  expect(value.error.code).toBe('hub')
  expect(value.error.message).toContain('check the name')
  expect((await halfling(['pull', 'none'])).stderr).toBe(
    'error: none: is not a name on the hub: org/name, org/name@revision or org/name/file.gguf\n',
  )
})
