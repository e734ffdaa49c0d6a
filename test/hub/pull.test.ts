import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { writeTinyModel } from '../../examples/tiny-model.ts'
import { HalflingError, HubError } from '../../sdk/errors.ts'
import { listModels, removeModel } from '../../sdk/hub/list.ts'
import { pullModel, resolveModel } from '../../sdk/hub/models.ts'
import { findRows, pullDataset } from '../../sdk/hub/rows.ts'
import type { PullProgress } from '../../sdk/hub/snapshot.ts'
import { loadModel } from '../../sdk/load.ts'
import { bytesOf, cut, gitHash, type Hub, refuse, send, sha256, startHub } from './server.ts'

// Against a server of our own with the hub's API.

const commit = 'c0ffee'.repeat(7).slice(0, 40)
const big = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 7919) >> 5)
const rows = bytesOf('{"question": "1 + 1", "answer": "2"}\n')
const tiny: Record<string, Uint8Array> = {}
let hub: Hub
let home: string
const cache = () => join(home, 'hub')
const blobs = (id = 'org--tiny') => join(cache(), `models--${id}`, 'blobs')
const snapshot = (id = 'org--tiny') => join(cache(), `models--${id}`, 'snapshots', commit)
const weights = 'model.safetensors'
const isWeights = (path: string) => path === `/cdn/${sha256(tiny[weights])}`

beforeAll(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'halfling-tiny-'))
  await writeTinyModel(folder)
  for (const name of readdirSync(folder)) tiny[name] = readFileSync(join(folder, name))
  rmSync(folder, { recursive: true })
  const duplicates = {
    'original/consolidated.safetensors': big,
    'pytorch_model.bin': big,
    'README.md': bytesOf('# tiny'),
  }
  hub = await startHub({
    'models/org/tiny': { commit, files: { ...tiny, ...duplicates } },
    'models/org/ggufs': { commit, files: { 'a-q4.gguf': big, 'b-q8.gguf': rows } },
    'models/org/bin': { commit, files: { 'config.json': rows, 'pytorch_model.bin': big } },
    'datasets/org/sums': {
      commit,
      files: { 'data/train.jsonl': rows, 'data/test.jsonl': bytesOf('{"question": "2 + 2", "answer": "4"}\n') },
    },
  })
})
afterAll(() => hub.close())
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'halfling-hub-'))
  for (const name of ['HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN', 'HF_TOKEN_PATH'])
    vi.stubEnv(name, '')
  vi.stubEnv('HF_HUB_OFFLINE', '')
  vi.stubEnv('HF_HOME', home)
  vi.stubEnv('HF_ENDPOINT', hub.url)
  hub.asked.length = 0
  hub.trouble = hub.edit = null
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

/** The error of a pull, which has to be one of ours. */
async function errorOf(work: Promise<unknown>): Promise<HalflingError> {
  const error = await work.then(
    () => null,
    (error: unknown) => error,
  )
  expect(error).toBeInstanceOf(HalflingError)
  return error as HalflingError
}

describe('a model', () => {
  it('lies in the cache as huggingface_hub lays it, without what we do not read', async () => {
    const progress: PullProgress[] = []
    const folder = await pullModel('org/tiny', { onProgress: (p) => progress.push(p) })
    expect(folder).toBe(snapshot())
    expect(readdirSync(folder).sort()).toEqual(Object.keys(tiny).sort())
    for (const [name, bytes] of Object.entries(tiny)) {
      expect(readFileSync(join(folder, name)).equals(bytes), name).toBe(true)
      const blob = name === weights ? sha256(bytes) : gitHash(bytes)
      expect(readlinkSync(join(folder, name))).toBe(`../../blobs/${blob}`)
    }
    expect(readdirSync(blobs()).filter((name) => name.includes('.'))).toEqual([])
    expect(readFileSync(join(cache(), 'models--org--tiny/refs/main'), 'utf8')).toBe(commit)
    const total = Object.values(tiny).reduce((sum, { length }) => sum + length, 0)
    expect(progress.at(-1)).toEqual({ file: weights, loadedBytes: total, totalBytes: total })
  })

  it('is loaded by its name, downloaded the first time and not asked for again', async () => {
    const files: string[] = []
    const lm = await loadModel('org/tiny', { threads: 1, onProgress: (p) => 'file' in p && files.push(p.file) })
    expect(lm.model.config.numHiddenLayers).toBe(2)
    await lm.close()
    expect(files).toContain(weights)
    const before = hub.asked.length
    expect((await resolveModel('org/tiny')).name).toBe(snapshot())
    expect(hub.asked.length).toBe(before)
  })

  it('at another revision has a ref of its own', async () => {
    await pullModel('org/tiny@refs/pr/1')
    await pullModel('org/tiny', { revision: 'v1' })
    await pullModel(`org/tiny@${commit}`)
    const refs = join(cache(), 'models--org--tiny/refs')
    expect(readFileSync(join(refs, 'refs/pr/1'), 'utf8')).toBe(commit)
    expect(readdirSync(refs).sort()).toEqual(['refs', 'v1'])
    expect((await errorOf(pullModel('org/tiny@nope'))).message).toContain('no such revision')
  })

  it('that Python has pulled is used as it is', async () => {
    mkdirSync(snapshot(), { recursive: true })
    mkdirSync(join(cache(), 'models--org--tiny/refs'))
    for (const [name, bytes] of Object.entries(tiny)) writeFileSync(join(snapshot(), name), bytes)
    writeFileSync(join(cache(), 'models--org--tiny/refs/main'), commit)
    vi.stubEnv('HF_HUB_OFFLINE', '1')
    expect((await resolveModel('org/tiny')).name).toBe(snapshot())
    rmSync(join(snapshot(), 'tokenizer.json'))
    expect((await errorOf(resolveModel('org/tiny'))).message).toContain('HF_HUB_OFFLINE')
  })

  it('of GGUF files is one of them', async () => {
    const error = await errorOf(pullModel('org/ggufs'))
    expect(error.message).toBe(
      'org/ggufs: choose one of its .gguf files, as in org/ggufs/a-q4.gguf: a-q4.gguf, b-q8.gguf',
    )
    const path = await pullModel('org/ggufs/a-q4.gguf')
    expect(path).toBe(join(snapshot('org--ggufs'), 'a-q4.gguf'))
    expect(readFileSync(path).equals(big)).toBe(true)
    expect(existsSync(join(snapshot('org--ggufs'), 'b-q8.gguf'))).toBe(false)
    expect(await pullModel(`${hub.url}/org/ggufs/blob/main/a-q4.gguf`)).toBe(path)
    expect((await errorOf(pullModel('org/ggufs/c.gguf'))).message).toContain(
      'has no c.gguf; its .gguf files: a-q4.gguf',
    )
  })

  it('of other files is refused before anything is downloaded', async () => {
    const { message } = await errorOf(pullModel('org/bin'))
    expect(message).toBe(
      'org/bin: has neither model.safetensors nor .gguf files; it has config.json, pytorch_model.bin',
    )
    expect(hub.downloads()).toEqual([])
  })
})

describe('an interrupted download', () => {
  it('asks for the rest only', async () => {
    let cuts = 0
    hub.trouble = (_, response, path) => {
      if (!isWeights(path) || cuts++ > 0) return
      cut(response, tiny[weights], 50_000)
      return true
    }
    const folder = await pullModel('org/tiny')
    expect(hub.downloads().map(({ range }) => range)).toEqual([undefined, 'bytes=50000-'])
    expect(readFileSync(join(folder, weights)).equals(tiny[weights])).toBe(true)
  })

  it('goes on in another run, after Ctrl-C', async () => {
    const stop = new AbortController()
    hub.trouble = (_, response, path) => {
      if (!isWeights(path)) return
      response.writeHead(200, { 'content-length': tiny[weights].length })
      response.write(tiny[weights].subarray(0, 70_000))
      setTimeout(() => stop.abort(new Error('enough')), 200)
      return true
    }
    await expect(pullModel('org/tiny', { signal: stop.signal })).rejects.toThrow('enough')
    const names = readdirSync(blobs()).filter((name) => name.includes('.'))
    expect(names).toEqual([`${sha256(tiny[weights])}.incomplete`])
    const { size } = lstatSync(join(blobs(), names[0]))
    expect(existsSync(join(cache(), 'models--org--tiny/refs/main'))).toBe(false)
    const [entry] = (await listModels()).filter(({ kind }) => kind === 'model')
    expect(entry).toMatchObject({ name: 'org/tiny', incompleteBytes: size })

    hub.trouble = null
    hub.asked.length = 0
    const folder = await pullModel('org/tiny')
    expect(hub.downloads().map(({ range }) => range)).toEqual([`bytes=${size}-`])
    expect(hub.asked.filter(({ path }) => path.endsWith('tokenizer.json'))).toEqual([])
    expect(readFileSync(join(folder, weights)).equals(tiny[weights])).toBe(true)
  })

  it('begins anew where the server ignores the range, or does not have it', async () => {
    for (const status of [200, 416]) {
      mkdirSync(blobs(), { recursive: true })
      writeFileSync(join(blobs(), `${sha256(tiny[weights])}.incomplete`), tiny[weights].subarray(0, 1000))
      hub.trouble = (request, response, path) => {
        if (!isWeights(path) || (status === 416 && !request.headers.range)) return
        response.writeHead(status)
        response.end(status === 200 ? tiny[weights] : undefined)
        return true
      }
      const folder = await pullModel('org/tiny')
      expect(readFileSync(join(folder, weights)).equals(tiny[weights])).toBe(true)
      rmSync(cache(), { recursive: true })
    }
  })

  it('whose connection never lasts ends in an error, and keeps what came', async () => {
    hub.trouble = (_, response, path) => {
      if (!isWeights(path)) return
      response.destroy()
      return true
    }
    writeFileSync(join(home, 'x'), '')
    const error = await errorOf(pullModel('org/tiny'))
    expect(error.message).toMatch(/^org\/tiny: model\.safetensors: 127\.0\.0\.1:\d+ cannot be reached/)
    hub.trouble = null
    expect(await pullModel('org/tiny')).toBe(snapshot())
  })

  it('counts a connection as dropped that stands still', async () => {
    vi.stubEnv('HF_HUB_DOWNLOAD_TIMEOUT', '0.3')
    let stalls = 0
    hub.trouble = (_, response, path) => {
      if (!isWeights(path) || stalls++ > 0) return
      response.writeHead(200, { 'content-length': tiny[weights].length })
      response.write(tiny[weights].subarray(0, 10_000))
      return true
    }
    await pullModel('org/tiny')
    expect(hub.downloads().map(({ range }) => range)).toEqual([undefined, 'bytes=10000-'])
  })
})

describe('a wrong content', () => {
  it.each(['model.safetensors', 'tokenizer.json'])('%s is refused and deleted', async (name) => {
    const wrong = Uint8Array.from(tiny[name])
    wrong[wrong.length >> 1] ^= 1
    hub.trouble = (request, response, path) => {
      if (!path.endsWith(name) && !(name === weights && isWeights(path))) return
      if (path.includes('/resolve/') && name === weights) return
      send(request, response, wrong, '"x"')
      return true
    }
    const error = await errorOf(pullModel('org/tiny'))
    expect(error).toBeInstanceOf(HubError)
    expect(error.message).toContain(`org/tiny: ${name}: the content does not match its checksum`)
    const hash = name === weights ? sha256(tiny[name]) : gitHash(tiny[name])
    expect(readdirSync(blobs()).filter((file) => file.startsWith(hash))).toEqual([])
    expect(existsSync(join(snapshot(), name))).toBe(false)
  })

  it('longer than announced is refused', async () => {
    hub.trouble = (_, response, path) => {
      if (!isWeights(path)) return
      response.writeHead(200)
      response.write(tiny[weights])
      response.end('and more')
      return true
    }
    expect((await errorOf(pullModel('org/tiny'))).message).toContain('sends more than')
  })
})

describe('what a server refuses names the remedy', () => {
  it('a name that does not exist', async () => {
    const error = await errorOf(pullModel('org/nothing'))
    expect((error as HubError).status).toBe(401)
    expect(error.message).toContain(
      'org/nothing: the hub has no such repository: check the name. A private one looks the',
    )
    expect(error.message).toContain('HF_TOKEN')
  })

  it.each([
    [401, 'x', 'HF_TOKEN'],
    [404, 'RepoNotFound', 'check the name'],
    [403, 'GatedRepo', 'accept its terms at http'],
    [403, 'x', 'forbids it (403)'],
    [400, 'x', 'answers 400'],
  ])('%i %s', async (status, code, remedy) => {
    hub.trouble = (_, response, path) => {
      if (!path.includes('/resolve/')) return
      refuse(response, status, code)
      return true
    }
    const error = await errorOf(pullModel('org/tiny'))
    expect(error).toMatchObject({ code: 'hub', status })
    expect(error.message).toContain(remedy)
    expect(error.message).toContain('org/tiny')
  })

  it('no network', async () => {
    const closed = await startHub({})
    await closed.close()
    vi.stubEnv('HF_ENDPOINT', closed.url)
    const { message } = await errorOf(loadModel('org/tiny'))
    expect(message).toContain('cannot be reached')
    expect(message).toContain('HF_HUB_CACHE')
    expect(message).toContain('nano, nano-base are bundled')
  })

  it('something that is no hub', async () => {
    hub.trouble = (_, response) => {
      response.end('<html>')
      return true
    }
    expect((await errorOf(pullModel('org/tiny'))).message).toContain('check HF_ENDPOINT')
  })

  it('offline, but for what is in the cache', async () => {
    vi.stubEnv('HF_HUB_OFFLINE', '1')
    expect((await errorOf(resolveModel('org/tiny'))).message).toContain('HF_HUB_OFFLINE forbids')
    vi.stubEnv('HF_HUB_OFFLINE', '')
    await pullModel('org/tiny')
    vi.stubEnv('HF_HUB_OFFLINE', '1')
    expect((await resolveModel('org/tiny')).name).toBe(snapshot())
    expect(hub.asked.filter(({ path }) => path.includes('/api/')).length).toBe(2)
  })

  it('a disk that is too small, by the listing alone', async () => {
    hub.edit = (entries) =>
      entries.map((entry) =>
        entry.path === weights ? { ...entry, size: 2 ** 52, lfs: { ...(entry.lfs as object), size: 2 ** 52 } } : entry,
      )
    const error = await errorOf(pullModel('org/tiny'))
    expect(error.code).toBe('io')
    expect(error.message).toMatch(/needs 4,503,599,627 MB more, and [\d,.]+ MB are free in .*HF_HUB_CACHE/)
    expect(hub.downloads()).toEqual([])
  })
})

it('tries again after 429 and 503, when the server says', async () => {
  const bad = [
    [429, { 'retry-after': '0' }],
    [503, { 'retry-after': '0' }],
  ] as const
  let n = 0
  hub.trouble = (_, response) => {
    if (n === bad.length) return
    refuse(response, bad[n][0], '', bad[n++][1])
    return true
  }
  expect(await pullModel('org/tiny')).toBe(snapshot())
  hub.trouble = (_, response) => {
    refuse(response, 429, '', { 'retry-after': '3600' })
    return true
  }
  expect((await errorOf(pullModel('org/tiny'))).message).toContain('it asks to come back in 3600 s')
})

it('gives the token to the hub alone', async () => {
  const other = await startHub({ 'models/org/tiny': { commit, files: tiny } })
  writeFileSync(join(home, 'token'), 'hf_fromFile\n')
  hub.trouble = (_, response, path) => {
    if (!path.includes('/resolve/') || !path.endsWith(weights)) return
    response.writeHead(302, { location: `${other.url}/cdn/${sha256(tiny[weights])}` }).end()
    return true
  }
  await pullModel('org/tiny')
  expect(new Set(hub.asked.map(({ authorization }) => authorization))).toEqual(new Set(['Bearer hf_fromFile']))
  expect(other.asked.map(({ authorization }) => authorization)).toEqual([undefined])
  vi.stubEnv('HF_TOKEN', 'a token\nwith a line')
  expect((await errorOf(pullModel('org/tiny'))).message).toContain('HF_TOKEN')
  await other.close()
})

describe('a hostile listing is refused', () => {
  const paths = ['../../x.safetensors', '/etc/passwd', 'a\\..\\b', 'C:/x', 'a//b', 'a/./b', '', 'nul\0', 7, null]
  it.each(paths)('path %j', async (path) => {
    hub.edit = (entries) => [...entries, { ...entries[0], path }]
    expect((await errorOf(pullModel('org/tiny'))).message).toContain('refused')
    expect(readdirSync(home)).toEqual([])
  })

  it.each([-1, 1.5, 2 ** 60, '12', null, undefined])('size %j', async (size) => {
    hub.edit = (entries) => entries.map((entry) => ({ ...entry, size }))
    expect((await errorOf(pullModel('org/tiny'))).message).toContain('is not its size in bytes')
  })

  it.each(['../../../x', '', null, 'ABCDEF'])('checksum %j', async (oid) => {
    hub.edit = (entries) => entries.map((entry) => ({ ...entry, oid, lfs: undefined }))
    expect((await errorOf(pullModel('org/tiny'))).message).toContain('has no checksum')
  })

  it('of pages without end', async () => {
    hub.trouble = (_, response, path) => {
      if (!path.includes('/tree/')) return
      response.writeHead(200, { link: `<${hub.url}${path}?page>; rel="next"` }).end('[]')
      return true
    }
    expect((await errorOf(pullModel('org/tiny'))).message).toContain('a listing of more than 1000 pages')
  })

  it('without end', async () => {
    hub.trouble = (_, response, path) => {
      if (!path.includes('/tree/')) return
      response.writeHead(200, { 'content-type': 'application/json' })
      const more = () => {
        while (response.write(' '.repeat(2 ** 20)) && !response.destroyed);
        if (!response.destroyed) response.once('drain', more)
      }
      more()
      return true
    }
    expect((await errorOf(pullModel('org/tiny'))).message).toContain('a listing of more than')
  })
})

describe('at the same time', () => {
  it('one downloads, the other waits and uses it', async () => {
    const folders = await Promise.all([pullModel('org/tiny'), pullModel('org/tiny')])
    expect(folders).toEqual([snapshot(), snapshot()])
    expect(hub.downloads()).toHaveLength(1)
    expect(readFileSync(join(snapshot(), weights)).equals(tiny[weights])).toBe(true)
    expect(readdirSync(blobs()).filter((name) => name.includes('.'))).toEqual([])
  })

  it('a lock that was left behind is taken over', async () => {
    mkdirSync(blobs(), { recursive: true })
    const lock = join(blobs(), `${sha256(tiny[weights])}.incomplete.lock`)
    // No process has this id; then: one of another machine that has not shown itself for a minute.
    writeFileSync(lock, `4194999 ${hostname()} 0`)
    await pullModel('org/tiny')
    rmSync(join(blobs(), sha256(tiny[weights])))
    writeFileSync(lock, '1 elsewhere 0')
    expect((await errorOf(removeModel('org/tiny'))).message).toContain('is being downloaded at this moment')
    utimesSync(lock, Date.now() / 1000 - 60, Date.now() / 1000 - 60)
    expect(await pullModel('org/tiny')).toBe(snapshot())
    expect(existsSync(lock)).toBe(false)
  })
})

describe('a dataset', () => {
  it('is the files of one split', async () => {
    const folder = join(cache(), 'datasets--org--sums/snapshots', commit)
    expect(await pullDataset('org/sums')).toEqual([join(folder, 'data/train.jsonl')])
    expect(readlinkSync(join(folder, 'data/train.jsonl'))).toBe(`../../../blobs/${gitHash(rows)}`)
    expect(await findRows('org/sums:test')).toEqual([join(folder, 'data/test.jsonl')])
    const before = hub.asked.length
    expect(await findRows('org/sums/data/test.jsonl')).toEqual([join(folder, 'data/test.jsonl')])
    expect((await errorOf(findRows('org/sums:dev'))).message).toContain('it has splits: test, train')
    expect(hub.asked.length).toBe(before)
    expect((await errorOf(findRows('./sums'))).code).toBe('option')
  })
})

describe('resolveModel', () => {
  it('knows the bundled models, paths that exist, and what cannot be a name', async () => {
    mkdirSync(join(home, 'model'))
    expect((await resolveModel(home)).name).toBe(home)
    expect((await resolveModel()).name).toMatch(/[\\/]models[\\/]nano$/)
    expect((await resolveModel('nano-base')).name).toMatch(/[\\/]models[\\/]nano-base$/)
    for (const name of ['./x', '/x/y', '../x', 'a/b/c', 'model.gguf', 'out', 'a/b.gguf', 'a/../b']) {
      const error = await errorOf(resolveModel(name))
      expect(error.message, name).toContain(`${name}: no such model folder or file`)
      expect(error.code).toBe('format')
    }
    expect(hub.asked).toEqual([])
  })
})

describe('list and rm', () => {
  it('tell what is there and delete it, nothing else', async () => {
    await pullModel('org/tiny')
    await pullModel('org/ggufs/b-q8.gguf')
    await pullDataset('org/sums')
    mkdirSync(join(cache(), 'something'))
    const models = await listModels()
    expect(models.map(({ name, kind }) => [name, kind])).toEqual([
      ['nano', 'bundled'],
      ['nano-base', 'bundled'],
      ['org/ggufs', 'model'],
      ['org/sums', 'dataset'],
      ['org/tiny', 'model'],
    ])
    const total = Object.values(tiny).reduce((sum, { length }) => sum + length, 0)
    const { bytes, modified, path, incompleteBytes } = models[4]
    expect(bytes).toBeGreaterThan(total)
    expect(bytes).toBeLessThan(total + 10_000)
    expect(incompleteBytes).toBe(0)
    expect(Date.now() - modified.getTime()).toBeLessThan(60_000)

    expect(await removeModel('org/tiny')).toBe(bytes)
    expect(existsSync(path)).toBe(false)
    for (const [name, why] of [
      ['org/tiny', 'is not in the cache'],
      ['nano', 'is bundled'],
      [home, 'is not in the cache'],
      ['../something', 'is not in the cache'],
      ['org/sums', 'a dataset needs --dataset'],
      ['org/ggufs/b-q8.gguf', 'is removed as a whole: org/ggufs'],
    ])
      expect((await errorOf(removeModel(name))).message, name).toContain(why)
    await removeModel('org/sums', { kind: 'dataset' })
    expect(readdirSync(cache()).sort()).toEqual(['models--org--ggufs', 'something'])
  })
})
