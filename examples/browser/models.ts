import {
  type DeviceReport,
  fileFolder,
  findDevices,
  importModel,
  type LanguageModel,
  type LoadOptions,
  listModels,
  loadModel,
  removeModel,
} from '../../sdk/index.ts'
import { $, busy, button, count, make, megabytes, notice } from './dom.ts'
import { facts } from './facts.ts'
import { current } from './model.ts'

const form = $<HTMLFormElement>('model-form')
const submit = form.querySelector<HTMLButtonElement>('[type=submit]')!
const choosers = [$<HTMLInputElement>('model-file'), $<HTMLInputElement>('model-folder')] as const
const choice = (name: string) => (form.elements.namedItem(name) as RadioNodeList | HTMLSelectElement).value

/** The Model tab: where a model comes from, and what computes it. */
export function wireModels(onChange: (model: LanguageModel | null) => Promise<void>): void {
  let loading: AbortController | null = null
  let reports: readonly DeviceReport[] = []
  const showFacts = () => {
    const { model } = current
    $('model-facts').hidden = model === null
    if (model) $('model-facts').replaceChildren(make('h2', {}, 'What it is'), ...facts(model, reports))
  }

  async function load(dropped?: readonly File[]): Promise<void> {
    const { place, name, files } = await chosen(dropped)
    const settings = { device: choice('device'), dtype: choice('dtype') } as LoadOptions
    const controller = new AbortController()
    loading = controller
    const { signal } = controller
    $('status').textContent = `Loading ${name} …`
    $('loading').hidden = false
    notice('')
    await current.model?.close()
    current.model = null
    await onChange(null)
    try {
      if (files) await importModel(files, name, { onProgress: told('Copying', name), signal })
      const model = await loadModel(place, {
        ...settings,
        signal,
        onProgress: told('Loading', name),
        onWarning: notice,
        onDeviceLost: () => notice('The GPU was lost; going on with another.'),
      })
      current.model = model
      const { description, threads: used } = model.model.target.info
      const threads = used > 0 ? `, ${used} thread${used === 1 ? '' : 's'}` : ''
      $('status').textContent = `${name} on ${model.model.target.name}${threads}`
      $('model-loaded').textContent = `${name} is computed by ${model.model.target.name} (${description}${threads}).`
      await onChange(model)
      await list()
    } catch (error) {
      $('status').textContent = signal.aborted ? 'Loading was cancelled' : 'No model is loaded'
      $('model-loaded').textContent = ''
      if (!signal.aborted) throw error
    } finally {
      loading = null
      $('loading').hidden = true
      showFacts()
    }
  }

  /** Where the model is, and what it is called; `files` are to be copied under that name first. */
  async function chosen(
    dropped?: readonly File[],
  ): Promise<{ place: Parameters<typeof loadModel>[0]; name: string; files?: readonly File[] }> {
    const place = choice('place')
    if (place === 'url' && !dropped) {
      const name = $<HTMLInputElement>('model-url').value.trim()
      if (name === '') throw new Error('Which model? A name such as Qwen/Qwen2.5-0.5B-Instruct, or a URL')
      return { place: name, name: name.split('/').filter(Boolean).at(-1)! }
    }
    if (place !== 'files' && !dropped) return { place, name: place }
    const files = dropped ?? choosers.flatMap((chooser) => [...(chooser.files ?? [])])
    if (files.length === 0)
      throw new Error('Which model? Choose a .gguf file, or a folder with config.json and model.safetensors')
    await checkModelFiles(files)
    const [folder, inFolder] = files[0].webkitRelativePath.split('/')
    const name = (inFolder ? folder : files[0].name.replace(/\.gguf$/i, '')).replace(/[^\w.-]+/g, '-')
    // What is dropped is looked at, and kept where it is.
    if (dropped || !$<HTMLInputElement>('model-keep').checked) return { place: fileFolder(files), name }
    return { place: name, name, files }
  }

  async function devices(measure: boolean): Promise<void> {
    reports = await findDevices({ measure })
    $('device-list').replaceChildren(...reports.filter(forPages).map(line))
    showFacts()
  }

  /** The built-in model, and those that were downloaded. */
  async function list(): Promise<void> {
    const kept = (await listModels()).filter(({ kind }) => kind !== 'bundled' && kind !== 'dataset')
    const asked = choice('place')
    $('model-list').replaceChildren(
      option('nano', ', built in'),
      ...kept.map(({ name, bytes }) => {
        const remove = button('Remove', () => removeModel(name).then(list), 'quiet')
        return make('div', { class: 'row' }, option(name, `, ${megabytes(bytes)}`), remove)
      }),
    )
    const wanted = form.querySelector<HTMLInputElement>(`[name=place][value=${CSS.escape(asked || 'nano')}]`)
    ;(wanted ?? form.querySelector<HTMLInputElement>('[name=place]')!).checked = true
  }

  form.addEventListener('submit', (event) => {
    event.preventDefault()
    void busy(submit, load)
  })
  form.addEventListener('input', () => {
    for (const part of form.querySelectorAll<HTMLElement>('[data-for]'))
      part.hidden = part.dataset.for !== choice('place')
  })
  $('load-cancel').addEventListener('click', () => loading?.abort())
  // One of the two is chosen.
  for (const [i, chooser] of choosers.entries())
    chooser.addEventListener('change', () => {
      if (chooser.files?.length) choosers[1 - i].value = ''
    })
  document.addEventListener('dragover', (event) => {
    if (event.dataTransfer?.types.includes('Files')) event.preventDefault()
  })
  // Boxes that take rows have seen theirs before.
  document.addEventListener('drop', (event) => {
    const files = [...(event.dataTransfer?.files ?? [])]
    if (event.defaultPrevented || files.length === 0) return
    event.preventDefault()
    if (loading) notice('A model is being loaded: wait for it, or cancel it')
    else void busy(submit, () => load(files))
  })
  const measure = $<HTMLButtonElement>('measure')
  measure.addEventListener('click', () => void busy(measure, () => devices(true)))
  $('model-list').replaceChildren(option('nano', ', built in'))
  form.querySelector<HTMLInputElement>('[name=place]')!.checked = true
  const device = new URLSearchParams(location.search).get('device')
  if (device) (form.elements.namedItem('device') as HTMLSelectElement).value = device
  void busy(submit, load).then(() => devices(false))
  void list().catch((error) => notice(error.message))
}

const told =
  (what: string, name: string) =>
  (progress: { readonly file?: string; readonly loadedBytes: number; readonly totalBytes: number }): void => {
    const { file, loadedBytes, totalBytes } = progress
    const doing = file === undefined || what === 'Copying' ? what : 'Downloading'
    $('status').textContent = `${doing} ${name} … ${megabytes(loadedBytes)} of ${megabytes(totalBytes)}`
    $<HTMLProgressElement>('load-progress').value = loadedBytes / totalBytes
  }

/** Before the model that is loaded goes away. */
async function checkModelFiles(files: readonly File[]): Promise<void> {
  const [{ name }] = files
  if (files.some((file) => file.name === 'config.json')) return
  const gguf = files.find((file) => /\.gguf$/i.test(file.name))
  if (!gguf)
    throw new Error(`${name} is no model: give a .gguf file, or the folder that has config.json and model.safetensors`)
  const head = await gguf.slice(0, 4).text()
  if (head !== 'GGUF')
    throw new Error(`${gguf.name} is no GGUF file: it does not begin with those letters (was the download cut off?)`)
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
          `reads ${speed.gigabytes.q4.toFixed(1)} GB/s of q4 weights`,
          `a 0.5B model would write about ${count(Math.round(speed.tokensOfHalfBillion.decoding))} tokens a second`,
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
