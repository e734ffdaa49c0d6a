import { type Command, Option } from 'commander'
import { type FloatDType, floatDTypes } from '../dtype.ts'
import type { WriteOptions } from '../model/write.ts'
import { formatNumber } from './output.ts'
import { Progress } from './progress.ts'

// What quantize and merge have in common: where to, in which type, and how far it is.

export interface WriteFlags {
  readonly output: string
  readonly dtype: FloatDType
  readonly tokenEmbeddingType?: FloatDType
  readonly force?: boolean
}

export const addOutput = (command: Command, dtype: FloatDType): Command =>
  command
    .requiredOption('--output <path>', 'a new folder (Hugging Face), or a file that ends in .gguf')
    .addOption(
      new Option('--dtype <type>', 'of the weights; q4a and q4 for .gguf only').choices(floatDTypes).default(dtype),
    )
    .addOption(
      new Option(
        '--token-embedding-type <type>',
        "of the vocabulary's tables in .gguf (default: q8 for q4a and q4)",
      ).choices(floatDTypes),
    )
    .option('--force', 'replace the file, or a folder that holds a model and nothing else')

export const megabytes = (bytes: number): string => `${formatNumber(bytes / 1e6)} MB`

/** Runs `write` with what `quantizeModel` takes; its progress is shown. */
export async function withProgress<T>(
  { dtype, tokenEmbeddingType, force }: WriteFlags,
  signal: AbortSignal,
  write: (options: WriteOptions) => Promise<T>,
): Promise<T> {
  const progress = new Progress('writing')
  const onProgress: WriteOptions['onProgress'] = ({ writtenBytes, totalBytes }) =>
    progress.update(writtenBytes, totalBytes, `${megabytes(writtenBytes)} of ${megabytes(totalBytes)}`)
  return write({ dtype, tokenEmbeddingType, force, signal, onProgress }).finally(() => progress.end())
}
