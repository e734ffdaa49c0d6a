import { type Command, Option } from 'commander'
import { deviceNames } from '../../device.ts'
import { type FloatDType, floatDTypes } from '../../dtype.ts'
import { OptionError } from '../../errors.ts'
import { type ExportOptions, exportOnnx, type OnnxDType, onnxDTypes } from '../../export/onnx.ts'
import { openModel, type StoredModel } from '../../formats/stored-model.ts'
import { resolveModel } from '../../hub/models.ts'
import { isGguf } from '../../model/write.ts'
import { quantizeModel } from '../../quantize.ts'
import { interruptible } from '../interrupt.ts'
import { withModel } from '../open-model.ts'
import { addJson, addThreads, type DeviceFlags, type JsonFlag, modelDescription } from '../options.ts'
import { print, printJson } from '../output.ts'
import { Progress } from '../progress.ts'
import { megabytes, withProgress } from '../write-model.ts'

const formats = ['onnx', 'safetensors', 'gguf'] as const

interface Flags extends JsonFlag, DeviceFlags {
  readonly model?: string
  readonly adapter?: string[]
  readonly format: (typeof formats)[number]
  readonly output: string
  readonly dtype?: FloatDType[]
}

export function addExport(program: Command): void {
  const command = program
    .command('export')
    .description(
      'writes a model for other programs: transformers.js and onnxruntime (onnx), PyTorch (safetensors), llama.cpp (gguf)',
    )
    .option('--model <name>', `${modelDescription} (default: nano)`)
    .option('--adapter <folders...>', 'PEFT folders, merged into its weights')
    .option('--device <name>', deviceNames.join(', '))
    .addOption(new Option('--format <name>', 'of the files').choices(formats).default('onnx'))
    .requiredOption('--output <path>', 'a new folder, or a file that ends in .gguf')
    .addOption(
      new Option('--dtype <types...>', 'of the weights, a file each for onnx (default: q4; bf16; q8)').choices(
        floatDTypes,
      ),
    )
  addJson(addThreads(command)).action(({ json, ...flags }: Flags) =>
    interruptible((signal) =>
      withMerged(flags, signal, async (model) => {
        const { output, format, dtype } = flags
        const files =
          format === 'onnx' ? await writeOnnx(model, flags, signal) : [await writeOther(model, flags, signal)]
        if (json) return printJson({ output, format, dtype, files })
        print(`${output}: ${files.join(', ')}`)
      }),
    ),
  )
}

/** The model as it lies in files, adapters merged in. */
async function withMerged(
  { model, adapter, device, threads, build }: Omit<Flags, 'json'>,
  signal: AbortSignal,
  work: (model: StoredModel) => Promise<void>,
): Promise<void> {
  if (!adapter) return work(await openModel(await resolveModel(model, { signal })))
  await withModel({ model, adapter, device, threads, build }, signal, async (lm) => work(await lm.mergedModel()))
}

async function writeOnnx(model: StoredModel, { output, dtype = ['q4'] }: Omit<Flags, 'json'>, signal: AbortSignal) {
  const other = dtype.find((name) => !onnxDTypes.includes(name as OnnxDType))
  if (other) throw new OptionError(`--dtype ${other}: onnx files are written in ${onnxDTypes.join(', ')}`)
  const progress = new Progress('writing')
  const onProgress: ExportOptions['onProgress'] = ({ file, writtenBytes }) =>
    progress.update(writtenBytes, writtenBytes, `${megabytes(writtenBytes)} of ${file}`)
  const options = { dtypes: dtype as OnnxDType[], signal, onProgress }
  return exportOnnx(model, output, options).finally(() => progress.end())
}

async function writeOther(model: StoredModel, { output, format, dtype }: Omit<Flags, 'json'>, signal: AbortSignal) {
  const isFile = isGguf({ name: output })
  if (isFile !== (format === 'gguf'))
    throw new OptionError(
      `--output ${output}: ${format} goes into ${isFile ? 'a folder' : 'a file that ends in .gguf'}`,
    )
  const [type = isFile ? 'q8' : 'bf16', ...more] = dtype ?? []
  if (more.length > 0) throw new OptionError(`--dtype: ${format} is written in one type`)
  const flags = { output, dtype: type }
  const { outputBytes } = await withProgress(flags, signal, (options) => quantizeModel(model, output, options))
  return `${megabytes(outputBytes)} of weights in ${type}`
}
