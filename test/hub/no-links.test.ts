import { lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, it, vi } from 'vitest'
import { listModels } from '../../sdk/hub/list.ts'
import { findRows, pullDataset } from '../../sdk/hub/rows.ts'
import { bytesOf, startHub } from './server.ts'

// As on Windows without developer mode: symbolic links are refused.
vi.mock('node:fs/promises', async (original) => ({
  ...(await original<typeof import('node:fs/promises')>()),
  symlink: async () => {
    throw Object.assign(new Error('EPERM: operation not permitted'), { code: 'EPERM', syscall: 'symlink' })
  },
}))
afterEach(() => vi.unstubAllEnvs())

it('without links the files themselves lie in the snapshot', async () => {
  const home = mkdtempSync(join(tmpdir(), 'halfling-hub-'))
  const rows = bytesOf('{"text": "a"}\n')
  const hub = await startHub({ 'datasets/org/rows': { commit: 'a'.repeat(40), files: { 'train.jsonl': rows } } })
  vi.stubEnv('HF_HUB_CACHE', home)
  vi.stubEnv('HF_ENDPOINT', hub.url)
  const [path] = await pullDataset('org/rows')
  expect(lstatSync(path).isFile()).toBe(true)
  expect(readFileSync(path).equals(rows)).toBe(true)
  expect(readdirSync(join(home, 'datasets--org--rows/blobs'))).toEqual([])
  const downloads = () => hub.asked.filter(({ path }) => path.includes('/resolve/')).length
  expect(await pullDataset('org/rows')).toEqual([path])
  expect(await findRows('org/rows')).toEqual([path])
  expect(downloads()).toBe(1)
  expect((await listModels()).at(-1)?.bytes).toBeGreaterThanOrEqual(rows.length)
  await hub.close()
  rmSync(home, { recursive: true })
})
