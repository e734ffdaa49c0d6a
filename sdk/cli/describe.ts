import type { AdapterDescription, ModelDescription } from '../model/describe.ts'
import { measureSpeed, predictDecode } from '../speed.ts'
import type { Target } from '../target.ts'
import { formatNumber } from './output.ts'

/** With the tokens that each dtype makes in a second on this device, which is measured for two seconds. */
export async function withSpeeds(d: ModelDescription, target: Target) {
  const speed = await measureSpeed(target)
  const forecasts = d.forecasts.map((forecast) => ({ ...forecast, decode: predictDecode(speed, forecast) }))
  return { ...d, device: target.name, threads: target.info.threads, forecasts }
}

const size = (bytes: number): string =>
  bytes < 1e6 ? `${formatNumber(bytes / 1e3)} kB` : `${formatNumber(bytes / 1e6)} MB`
const quoted = (text: string | null): string => (text === null ? 'none' : JSON.stringify(text))

/** Facts in lines, each under its name. */
const lines = (facts: readonly (readonly [string, string | null])[]): string =>
  facts
    .flatMap(([name, text]) =>
      text === null ? [] : [`${name.padEnd(14)} ${text.replaceAll('\n', `\n${' '.repeat(15)}`)}`],
    )
    .join('\n')

/** Columns of numbers under their heads. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)))
  return rows
    .map((row) => row.map((text, i) => (i === 0 ? text.padEnd(widths[i]) : text.padStart(widths[i]))).join('  '))
    .join('\n')
}

export function modelText(d: Awaited<ReturnType<typeof withSpeeds>>): string {
  const { config: c, title } = d
  const heads = `${c.numAttentionHeads} heads of ${c.headDim}, ${c.numKeyValueHeads} for keys and values`
  const types = d.types.map(({ stored, dtype, tensors, bytes }) => [
    stored,
    `${tensors} tensor${tensors === 1 ? '' : 's'}`,
    size(bytes),
    `opens as ${dtype}`,
  ])
  const tokens = formatNumber(d.forecasts[0].cacheTokens)
  const forecasts = d.forecasts.map(({ dtype, weightBytes, cacheBytes, decode }) => [
    dtype === 'auto' ? 'as stored' : dtype,
    size(weightBytes),
    size(weightBytes + cacheBytes),
    `${formatNumber(decode)} tokens/s`,
  ])
  return lines([
    ['model', title === null || title === d.name ? d.name : `${d.name} (${title})`],
    [
      'architecture',
      `${c.family}: ${c.numHiddenLayers} layers of ${c.hiddenSize}, ${heads}, vocabulary ${formatNumber(c.vocabSize)}`,
    ],
    ['parameters', formatNumber(d.parameters)],
    ['licence', d.license],
    ['context', `${formatNumber(d.contextLength)} tokens`],
    ['stored as', table(types)],
    [
      'chat template',
      d.hasChatTemplate ? `yes; before a first message it puts ${quoted(d.opening)}` : 'none: use generate',
    ],
    ['system text', d.hasChatTemplate ? quoted(d.defaultSystem) : null],
    ['end tokens', d.endTokens.map(({ id, text }) => `${text} (${id})`).join(', ') || 'none'],
    ['in memory', table([['dtype', 'weights', `+ ${tokens} tokens`, `${d.device}, up to`], ...forecasts])],
  ])
}

export function adapterText({ name, config: c, parameters, modules }: AdapterDescription): string {
  const kind = [c.useDora ? 'DoRA' : 'LoRA', ...(c.useRslora ? ['rsLoRA scale'] : [])].join(', ')
  const places = Object.entries(modules).map(([module, count]) => `${module} (${count})`)
  return lines([
    ['adapter', `${name}: ${kind}`],
    ['base model', c.baseModel ?? 'not told'],
    ['rank', `${c.r}${Object.keys(c.rankPattern).length > 0 ? `, others ${JSON.stringify(c.rankPattern)}` : ''}`],
    [
      'alpha',
      `${c.loraAlpha}${Object.keys(c.alphaPattern).length > 0 ? `, others ${JSON.stringify(c.alphaPattern)}` : ''}`,
    ],
    ['targets', places.join(', ')],
    ['saved whole', c.modulesToSave.join(', ') || null],
    ['parameters', formatNumber(parameters)],
  ])
}
