import type { Command } from 'commander'
import { deviceNames } from '../../device.ts'
import { quantizeModel } from '../../quantize.ts'
import { interruptible } from '../interrupt.ts'
import { withModel } from '../open-model.ts'
import { addJson, addThreads, type DeviceFlags, type JsonFlag } from '../options.ts'
import { print, printJson } from '../output.ts'
import { addOutput, megabytes, type WriteFlags, withProgress } from '../write-model.ts'

interface Flags extends JsonFlag, DeviceFlags, WriteFlags {
  readonly model?: string
  readonly adapter: string[]
}

export function addMerge(program: Command): void {
  const command = program
    .command('merge')
    .description('writes a model with adapters merged into its weights')
    .option('--model <name>', 'nano, nano-base, a Hugging Face folder, a .gguf file, or org/name (default: nano)')
    .requiredOption('--adapter <folders...>', 'PEFT folders, all of them merged')
    .option('--device <name>', deviceNames.join(', '))
  addJson(addOutput(addThreads(command), 'bf16')).action(
    ({ model, adapter, device, threads, build, json, ...flags }: Flags) =>
      interruptible((signal) =>
        withModel({ model, adapter, device, threads, build }, signal, async (lm) => {
          const { output } = flags
          const merged = await lm.mergedModel()
          const { outputBytes } = await withProgress(flags, signal, (options) => quantizeModel(merged, output, options))
          const adapters = lm.model.activeAdapters
          if (json) return printJson({ output, dtype: flags.dtype, outputBytes, adapters })
          print(
            `${output}: ${megabytes(outputBytes)} of weights in ${flags.dtype}, with ${adapters.join(', ')} merged in`,
          )
        }),
      ),
  )
}
