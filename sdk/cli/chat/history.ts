import { mkdir, readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { storeAt } from '../../store/store.ts'
import { textChunks } from '../../store/text.ts'

/** Lines kept. */
export const historySize = 500

/** HALFLING_HISTORY names the file, or is `off`; else it is where programs keep their state. */
export function historyFile(): string | null {
  const given = process.env.HALFLING_HISTORY
  if (given === 'off') return null
  return given || join(process.env.XDG_STATE_HOME || join(homedir(), '.local/state'), 'halfling/history')
}

/** The lines of earlier chats, newest first. */
export async function readHistory(): Promise<string[]> {
  const file = historyFile()
  if (file === null) return []
  const text = await readFile(file, 'utf8').catch(() => '')
  return text.split('\n').filter(Boolean).reverse().slice(0, historySize)
}

/** @param lines newest first */
export async function writeHistory(lines: readonly string[]): Promise<void> {
  const file = historyFile()
  if (file === null || lines.length === 0) return
  // A chat must not end in an error because its history cannot be kept.
  const text = `${lines.slice(0, historySize).toReversed().join('\n')}\n`
  await mkdir(dirname(file), { recursive: true, mode: 0o700 })
    .then(async () => (await storeAt(file)).write('', textChunks(text)))
    .catch(() => {})
}
