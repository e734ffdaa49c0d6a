import type { Evaluation } from '../../sdk/index.ts'
import type { Lesson } from './lesson.ts'

// The browser's own storage for this page (OPFS). A lesson has a folder, runs/<name>: its checkpoints while it runs, its adapter
// once it is done, and lesson.json until then, so that a page that was closed goes on with it.

/** What the charts show. */
export interface Points {
  readonly main: [step: number, value: number][]
  readonly second: [step: number, value: number][]
}

export interface Unfinished {
  readonly lesson: Lesson
  readonly before: Evaluation | null
  readonly points: Points
}

const lessonFile = 'lesson.json'
const pointsOf = (name: string) => `halfling points of ${name}`

async function folder(path: string): Promise<FileSystemDirectoryHandle> {
  let at = await navigator.storage.getDirectory()
  for (const part of path.split('/')) at = await at.getDirectoryHandle(part, { create: true })
  return at
}

async function namesIn(path: string): Promise<string[]> {
  const names: string[] = []
  // Not in the types yet.
  const at = (await folder(path)) as unknown as { keys(): AsyncIterable<string> }
  for await (const name of at.keys()) names.push(name)
  return names
}

async function write(path: string, name: string, content: string | Blob): Promise<void> {
  const writable = await (await (await folder(path)).getFileHandle(name, { create: true })).createWritable()
  await writable.write(content)
  await writable.close()
}

const remove = async (path: string, name: string): Promise<void> =>
  (await folder(path)).removeEntry(name, { recursive: true }).catch(() => {})

/** Copies files, so that they are there when the page is opened again. */
export async function keepFiles(path: string, files: readonly File[]): Promise<void> {
  for (const file of files) await write(path, file.name, file)
}

/** This name, or with a number the first that no lesson has. */
export async function freeName(wanted: string): Promise<string> {
  const taken = await namesIn('runs')
  let name = wanted
  for (let n = 2; taken.includes(name); n++) name = `${wanted}-${n}`
  return name
}

export const begun = (lesson: Lesson, before: Evaluation | null): Promise<void> =>
  write(`runs/${lesson.name}`, lessonFile, JSON.stringify({ lesson, before }))

export const reached = (name: string, points: Points): void =>
  localStorage.setItem(pointsOf(name), JSON.stringify(points))

/** Its adapter stays. */
export async function finished(name: string): Promise<void> {
  localStorage.removeItem(pointsOf(name))
  const path = `runs/${name}`
  for (const file of await namesIn(path)) if (!file.startsWith('adapter_')) await remove(path, file)
}

/** Nothing of it stays. */
export async function discarded(name: string): Promise<void> {
  localStorage.removeItem(pointsOf(name))
  await remove('runs', name)
}

/** Lessons that are done, and those that are not. */
export async function lessons(): Promise<{
  readonly done: readonly string[]
  readonly unfinished: readonly Unfinished[]
}> {
  const done: string[] = []
  const unfinished: Unfinished[] = []
  for (const name of await namesIn('runs')) {
    const files = await namesIn(`runs/${name}`)
    if (!files.includes(lessonFile)) done.push(name)
    else {
      const file = await (await (await folder(`runs/${name}`)).getFileHandle(lessonFile)).getFile()
      const points = JSON.parse(localStorage.getItem(pointsOf(name)) ?? '{"main":[],"second":[]}')
      unfinished.push({ ...JSON.parse(await file.text()), points })
    }
  }
  return { done, unfinished }
}
