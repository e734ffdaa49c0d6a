import type { ExactMatch } from '../../sdk/index.ts'
import type { Lesson } from './run.ts'

// What a lesson was about, kept in the browser's own storage until it is done: a page that was closed goes on with it.

/** What the charts show. */
export interface Points {
  readonly main: [step: number, value: number][]
  readonly second: [step: number, value: number][]
}

interface Unfinished {
  readonly lesson: Lesson
  readonly before: ExactMatch | null
}

const file = 'unfinished-lesson.json'
const pointsKey = 'halfling-points'

export async function remember(unfinished: Unfinished): Promise<void> {
  const root = await navigator.storage.getDirectory()
  const writable = await (await root.getFileHandle(file, { create: true })).createWritable()
  await writable.write(JSON.stringify(unfinished))
  await writable.close()
}

export const rememberPoints = (points: Points): void => localStorage.setItem(pointsKey, JSON.stringify(points))

export async function forget(): Promise<void> {
  localStorage.removeItem(pointsKey)
  const root = await navigator.storage.getDirectory()
  await root.removeEntry(file).catch(() => {})
}

export async function unfinished(): Promise<(Unfinished & { readonly points: Points }) | null> {
  try {
    const root = await navigator.storage.getDirectory()
    const text = await (await (await root.getFileHandle(file)).getFile()).text()
    const points = JSON.parse(localStorage.getItem(pointsKey) ?? '{"main":[],"second":[]}')
    return { ...JSON.parse(text), points }
  } catch {
    return null
  }
}
