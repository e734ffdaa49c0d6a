import type { Engine, LoadSettings, ModelInfo, ModelPlace } from '../../sdk/browser/index.ts'
import type { DeviceReport } from '../../sdk/index.ts'
import { $, busy, button, count, make, megabytes, notice } from './dom.ts'

const form = $<HTMLFormElement>('model-form')
const choice = (name: string) => (form.elements.namedItem(name) as RadioNodeList | HTMLSelectElement).value

/** The Model tab: where a model comes from, and what computes it. */
export function wireModels(engine: Engine, onChange: (info: ModelInfo | null) => Promise<void>): void {
  async function load(): Promise<void> {
    const [place, name] = await chosen()
    const settings = { device: choice('device'), dtype: choice('dtype') } as LoadSettings
    $('status').textContent = `Loading ${name} …`
    notice('')
    await onChange(null)
    try {
      const info = await engine.load(place, settings, told(name))
      const { device, parameters, context } = info
      const threads = device.threads > 0 ? `, ${device.threads} thread${device.threads === 1 ? '' : 's'}` : ''
      $('status').textContent = `${name} on ${device.name}${threads}`
      $('model-loaded').textContent =
        `${name}: ${count(parameters)} parameters, reads ${count(context)} tokens, on ${device.name} (${device.description}${threads}).`
      await onChange(info)
      await list()
    } catch (error) {
      $('status').textContent = 'No model is loaded'
      $('model-loaded').textContent = ''
      throw error
    }
  }

  async function chosen(): Promise<[ModelPlace, string]> {
    const place = choice('place')
    if (place === 'url') {
      const name = $<HTMLInputElement>('model-url').value.trim()
      if (name === '') throw new Error('Which model? A name such as Qwen/Qwen2.5-0.5B-Instruct, or a URL')
      return [name, name.split('/').filter(Boolean).at(-1)!]
    }
    if (place !== 'files') return [place, place]
    const files = [...($<HTMLInputElement>('model-folder').files ?? [])]
    if (files.length === 0) throw new Error('Which folder? Choose one with config.json and model.safetensors')
    const name = files[0].webkitRelativePath.split('/')[0].replace(/[^\w.-]+/g, '-')
    if (!$<HTMLInputElement>('model-keep').checked) return [files, name]
    await engine.importModel(files, name, told(name))
    return [name, name]
  }

  async function devices(measure: boolean): Promise<void> {
    $('device-list').replaceChildren(...(await engine.devices({ measure })).filter(forPages).map(line))
  }

  /** The built-in model, and those that were downloaded. */
  async function list(): Promise<void> {
    const kept = (await engine.models()).filter(({ kind }) => kind !== 'bundled' && kind !== 'dataset')
    const asked = choice('place')
    $('model-list').replaceChildren(
      option('nano', ', built in'),
      ...kept.map(({ name, bytes }) => {
        const remove = button('Remove', () => engine.removeModel(name).then(list), 'quiet')
        return make('div', { class: 'row' }, option(name, `, ${megabytes(bytes)}`), remove)
      }),
    )
    const wanted = form.querySelector<HTMLInputElement>(`[name=place][value=${CSS.escape(asked || 'nano')}]`)
    ;(wanted ?? form.querySelector<HTMLInputElement>('[name=place]')!).checked = true
  }

  form.addEventListener('submit', (event) => {
    event.preventDefault()
    void busy(form.querySelector<HTMLButtonElement>('[type=submit]')!, load)
  })
  form.addEventListener('input', () => {
    for (const part of form.querySelectorAll<HTMLElement>('[data-for]'))
      part.hidden = part.dataset.for !== choice('place')
  })
  const measure = $<HTMLButtonElement>('measure')
  measure.addEventListener('click', () => void busy(measure, () => devices(true)))
  $('model-list').replaceChildren(option('nano', ', built in'))
  form.querySelector<HTMLInputElement>('[name=place]')!.checked = true
  const device = new URLSearchParams(location.search).get('device')
  if (device) (form.elements.namedItem('device') as HTMLSelectElement).value = device
  void busy(form.querySelector<HTMLButtonElement>('[type=submit]')!, load).then(() => devices(false))
  void list().catch((error) => notice(error.message))
}

const told =
  (name: string) =>
  ({ loadedBytes, totalBytes }: { readonly loadedBytes: number; readonly totalBytes: number }): void => {
    $('status').textContent = `Loading ${name} … ${megabytes(loadedBytes)} of ${megabytes(totalBytes)}`
  }

const option = (name: string, more: string): HTMLElement =>
  make(
    'label',
    {},
    make('input', { type: 'radio', name: 'place', value: name }),
    ` ${name}`,
    make('span', { class: 'hint' }, more),
  )

/** Those of servers, and the tests' own, are of no use in a page. */
const forPages = ({ name }: DeviceReport): boolean => name === 'webgpu' || name === 'wasm'

function line({ name, available, reason, memoryLimit, speed }: DeviceReport): HTMLElement {
  const facts = [
    ...(memoryLimit === undefined ? [] : [`holds ${megabytes(memoryLimit)}`]),
    ...(speed
      ? [
          `${count(Math.round(speed.gflops))} GFLOP/s`,
          `reads ${speed.gigabytes.toFixed(1)} GB/s`,
          `a 0.5B model would write about ${count(Math.round(speed.tokensOfHalfBillion.decode))} tokens a second`,
        ]
      : []),
  ]
  return make(
    'li',
    {},
    make('strong', { class: available ? 'right' : 'wrong' }, `${available ? '✓' : '✗'} ${name}`),
    make('span', {}, ` ${reason.replaceAll(`${name}: `, '')}`),
    ...(facts.length > 0 ? [make('p', { class: 'hint' }, facts.join(', '))] : []),
  )
}
