import { type Entry, type Store, writeFiles } from '../../sdk/store/store.ts'
import { readText, textChunks } from '../../sdk/store/text.ts'

// What every Store does: each case gets an empty one and tells what it saw. Runs on Node's disk, in memory and in the browser.

const named = (entries: Entry[]) => entries.map(({ name, kind, bytes }) => [name, kind, kind === 'file' ? bytes : 0])
const messageOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'none',
    (error) => error.message,
  )

async function* failing(): AsyncGenerator<Uint8Array> {
  yield* textChunks('half')
  throw new Error('no more')
}

export const cases: Record<string, { run(store: Store): Promise<unknown>; gives: unknown }> = {
  'a file is written in pieces, read in parts and replaced': {
    async run(store) {
      await store.write('folder/a', ['one ', 'two ', 'three'].flatMap(textChunks))
      const file = (await store.open('folder/a'))!
      const part = new TextDecoder().decode(await file.read(4, 8))
      const beyond = (await messageOf(file.read(10, 4))).replace(/.*: /, '')
      await store.write('folder/a', textChunks('new'))
      return [file.size, part, beyond, await readText(store, 'folder/a'), named(await store.list('folder'))]
    },
    gives: [13, 'two thre', 'no bytes 10 to 14, it has 13 (is it truncated?)', 'new', [['a', 'file', 3]]],
  },
  'a folder is written whole and replaced': {
    async run(store) {
      const files = (...names: string[]) => new Map(names.map((name) => [name, textChunks(name)]))
      await store.write('runs/one', files('config.json', 'weights'))
      const first = named(await store.list('runs/one'))
      await store.write('runs/one', files('other'))
      await writeFiles(store, files('runs/beside'))
      return [first, named(await store.list('runs/one')), named(await store.list('runs'))]
    },
    gives: [
      [
        ['config.json', 'file', 11],
        ['weights', 'file', 7],
      ],
      [['other', 'file', 5]],
      [
        ['beside', 'file', 11],
        ['one', 'folder', 0],
      ],
    ],
  },
  'what fails leaves what was there, and nothing half-written': {
    async run(store) {
      await store.write('a', textChunks('old'))
      await store.write('folder', new Map([['x', textChunks('old')]]))
      const half = new Map<string, Iterable<Uint8Array> | AsyncIterable<Uint8Array>>([
        ['x', textChunks('new')],
        ['y', failing()],
      ])
      const messages = [
        await messageOf(store.write('a', failing())),
        await messageOf(store.write('b', failing())),
        await messageOf(store.write('folder', half)),
      ]
      return [messages, named(await store.list()), await readText(store, 'a'), await readText(store, 'folder/x')]
    },
    gives: [
      ['no more', 'no more', 'no more'],
      [
        ['a', 'file', 3],
        ['folder', 'folder', 0],
      ],
      'old',
      'old',
    ],
  },
  'a file grows at its end, or from where it is cut; what came stays': {
    async run(store) {
      const sizes = [
        await store.append('logs/a', textChunks('one\n')),
        await store.append('logs/a', textChunks('two\n')),
        await store.append('logs/a', [], 4),
        await store.append('logs/a', textChunks('three\n'), 100),
      ]
      const message = await messageOf(store.append('logs/a', failing()))
      return [sizes, message, await readText(store, 'logs/a')]
    },
    gives: [[4, 8, 4, 10], 'no more', 'one\nthree\nhalf'],
  },
  'what is not there': {
    async run(store) {
      await store.write('folder/a', textChunks('x'))
      await store.remove('none')
      return [
        await store.open('none'),
        await store.open('none/below'),
        await store.open('folder'),
        await store.open('folder/a/below'),
        await store.list('none'),
        await store.list('folder/a'),
      ].map((found) => (Array.isArray(found) ? found.length : found))
    },
    gives: [null, null, null, null, 0, 1],
  },
  'files get other names, and go': {
    async run(store) {
      await store.write('a', textChunks('new'))
      await store.write('folder/b', textChunks('old and longer'))
      await store.move('a', 'folder/b')
      const moved = [await readText(store, 'folder/b'), named(await store.list())]
      await store.remove('folder')
      return [...moved, named(await store.list())]
    },
    gives: ['new', [['folder', 'folder', 0]], []],
  },
  'a lock is held once': {
    async run(store) {
      const first = await store.lock('run.lock')
      const second = await store.lock('run.lock')
      if (typeof first === 'string') return 'taken'
      await first()
      const third = await store.lock('run.lock')
      const seen = [typeof second, typeof third]
      if (typeof third !== 'string') await third()
      return [...seen, named(await store.list())]
    },
    gives: ['string', 'function', []],
  },
}
