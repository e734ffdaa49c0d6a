import { type DeviceReport, type LanguageModel, predictDecode } from '../../sdk/index.ts'
import { count, make, megabytes } from './dom.ts'

/** What the model is, what it takes in each dtype, and once speeds are measured what it would make of tokens. */
export function facts({ description: d, model }: LanguageModel, devices: readonly DeviceReport[]): HTMLElement[] {
  const { name } = model.target
  const speed = devices.find((device) => device.name === name)?.speed
  const { config } = d
  const types = d.types.map(({ stored, dtype, bytes }) => `${stored}: ${megabytes(bytes)}, opens as ${dtype}`)
  const rows: readonly (readonly [string, string | null])[] = [
    ['Calls itself', d.title],
    ['Architecture', `${config.family}, ${config.numHiddenLayers} layers of ${config.hiddenSize}`],
    ['Parameters', count(d.parameters)],
    ['Licence', d.license],
    ['Reads', `${count(d.contextLength)} tokens`],
    ['Stored as', types.join('; ')],
    ['System text', d.hasChatTemplate ? (d.defaultSystem ?? 'none unless you give one') : 'no chat template'],
    ['Ends with', d.endTokens.map(({ text }) => text).join(' or ') || 'nothing'],
  ]
  const heads = [
    'Weights as',
    'take',
    `with ${count(d.forecasts[0].cacheTokens)} tokens`,
    ...(speed ? [`on ${name}`] : []),
  ]
  return [
    make(
      'dl',
      {},
      ...rows.flatMap(([term, text]) => (text === null ? [] : [make('dt', {}, term), make('dd', {}, text)])),
    ),
    make(
      'table',
      {},
      make('thead', {}, make('tr', {}, ...heads.map((head) => make('th', { scope: 'col' }, head)))),
      make(
        'tbody',
        {},
        ...d.forecasts.map((forecast) => {
          const { dtype, weightBytes, cacheBytes } = forecast
          const perSecond = speed ? [`up to ${count(Math.round(predictDecode(speed, forecast)))} tokens a second`] : []
          const cells = [megabytes(weightBytes), megabytes(weightBytes + cacheBytes), ...perSecond]
          const first = make('th', { scope: 'row' }, dtype === 'auto' ? 'as stored' : dtype)
          return make('tr', {}, first, ...cells.map((text) => make('td', {}, text)))
        }),
      ),
    ),
  ]
}
