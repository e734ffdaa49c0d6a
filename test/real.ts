import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

/** A real model that `../shared/tools/get-real-models.sh` fetched, and why a test of it is skipped: false where it is there. */
export function realModel(file: string): { path: string; missing: string | false } {
  const path = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'halfling-real', file)
  return {
    path,
    missing: existsSync(path) ? false : `${path} is absent: get-real-models.sh fetches it`,
  }
}
