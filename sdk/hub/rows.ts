import { HubError } from '../errors.ts'
import { parseDatasetName } from './names.ts'

/**
 * The files of rows (.parquet, .jsonl, .json) of a dataset on the hub, from the cache or downloaded.
 *
 * @param name `org/name`, `org/name:split` (default: train), `org/name/folder:split`, `org/name/path/to/file.parquet`,
 *   each with `@revision` at the end where another than `main` is meant
 * @returns paths of local files, in the order of their rows
 * @throws HubError for a wrong name, a split that is not there, no access, no network
 */
export async function findRows(
  name: string,
  _options: { readonly revision?: string; readonly signal?: AbortSignal } = {},
): Promise<string[]> {
  throw new HubError(`${name}: not built yet`)
}

/** May this be the name of a dataset on the hub? Ask after files of that name. */
export function isDatasetName(name: string): boolean {
  return parseDatasetName(name) !== null
}
