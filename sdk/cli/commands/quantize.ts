import type { Command } from 'commander'
import { resolveModel } from '../../hub/models.ts'
import { type QuantizeOptions, type QuantizeReport, quantizeModel } from '../../quantize.ts'
import type { Source } from '../../store/store.ts'
import { interruptible } from '../interrupt.ts'
import { addJson, type JsonFlag, modelDescription } from '../options.ts'
import { log, print, printJson } from '../output.ts'
import { Progress } from '../progress.ts'
import { addOutput, megabytes, type WriteFlags, withProgress } from '../write-model.ts'

interface Flags extends JsonFlag, WriteFlags {
  readonly model?: string
  readonly calibrationData?: string
}

export function addQuantize(program: Command): void {
  const command = program
    .command('quantize')
    .description('writes a model anew with its weights in another type: smaller, or for other programs')
    .option('--model <name>', `${modelDescription} (default: nano)`)
    .option(
      '--calibration-data <file>',
      'a text (.txt) or rows (.jsonl) like what the model is for: q4a and q4 come closer to it on such (GPTQ)',
    )
  addJson(addOutput(command, 'q8')).action((flags: Flags) =>
    interruptible(async (signal) => {
      const source = await pulled(flags.model, signal)
      const { calibrationData } = flags
      const calibrating = new Progress('calibrating')
      const onCalibration: QuantizeOptions['onCalibration'] = ({ tokens, totalTokens }) => {
        calibrating.update(tokens, totalTokens, `${tokens} of ${totalTokens} tokens`)
        if (tokens === totalTokens) calibrating.end()
      }
      const report = await withProgress(flags, signal, (options) =>
        quantizeModel(source, flags.output, { ...options, calibrationData, onCalibration }),
      )
      if (flags.json) printJson(report)
      else printReport(report)
    }),
  )
}

async function pulled(model: string | undefined, signal: AbortSignal): Promise<Source> {
  const progress = new Progress('pulling')
  return resolveModel(model, {
    signal,
    onProgress: ({ loadedBytes, totalBytes }) =>
      progress.update(loadedBytes, totalBytes, `${megabytes(loadedBytes)} of ${megabytes(totalBytes)}`),
  }).finally(() => progress.end())
}

function printReport({ output, inputBytes, outputBytes, relativeError, parts, requantized }: QuantizeReport): void {
  const line = (part: string, type: string, weights: string, error: string) =>
    print(`${part.padEnd(10)} ${type.padEnd(5)} ${weights.padStart(13)} ${error.padStart(9)}`)
  line('part', 'type', 'weights', 'error')
  for (const { part, dtype, weights, relativeError } of parts)
    line(part, dtype, weights.toLocaleString('en-US'), percent(relativeError))
  const all = parts.reduce((sum, { weights }) => sum + weights, 0)
  line('all', '', all.toLocaleString('en-US'), percent(relativeError))
  print(`${output}: ${megabytes(outputBytes)} of weights, from ${megabytes(inputBytes)}`)
  if (requantized)
    log(
      `warning: ${requantized.weights.toLocaleString('en-US')} weights were quantized already (${requantized.from.join(', ')}); rounding them once more changed them by ${percent(requantized.relativeError)}: take the unquantized model where there is one`,
    )
}

/** The root mean square of the change over that of the weights. */
function percent(share: number): string {
  if (share === 0) return '0'
  return share < 1e-4 ? '<0.01%' : `${(100 * share).toPrecision(2)}%`
}
