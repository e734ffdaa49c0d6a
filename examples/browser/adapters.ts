import { zipSync } from 'fflate'
import { loadAdapter } from '../../sdk/index.ts'
import { $, button, make, notice } from './dom.ts'
import { adaptersOf, loaded } from './model.ts'
import { discarded, lessons } from './storage.ts'

/** The list of adapters: on and off, download, remove. */
export function wireAdapters(): { show(): Promise<void>; restore(): Promise<void> } {
  /** Those of earlier visits, off; of another model's nothing is shown. */
  async function restore(): Promise<void> {
    const model = loaded()
    for (const name of (await lessons()).done) await loadAdapter(model, `runs/${name}`, name).catch(() => {})
    await model.setAdapters([])
    await show()
  }

  async function show(): Promise<void> {
    const adapters = adaptersOf(loaded())
    $('no-adapters').hidden = adapters.length > 0
    $('adapter-list').replaceChildren(
      ...adapters.map(({ name, active, rank }) => {
        const on = make('input', { type: 'checkbox', role: 'switch', id: `on-${name}` })
        on.checked = active
        on.addEventListener('change', () => void swap(name, on.checked))
        return make(
          'li',
          { class: 'row', 'aria-label': name },
          make('label', { class: 'switch grow', for: `on-${name}` }, on, make('strong', {}, name), ` rank ${rank}`),
          button('Download', () => download(name)),
          button('Remove', () => remove(name), 'quiet'),
        )
      }),
    )
  }

  async function swap(name: string, on: boolean): Promise<void> {
    const model = loaded()
    const active = adaptersOf(model).filter((adapter) => adapter.active && adapter.name !== name)
    const names = [...active.map((adapter) => adapter.name), ...(on ? [name] : [])]
    await model.setAdapters(names).catch((error) => notice(error.message))
    const focused = document.activeElement?.id
    await show()
    if (focused) $(focused)?.focus()
  }

  async function remove(name: string): Promise<void> {
    await loaded().removeAdapter(name)
    await discarded(name)
    await show()
  }

  /** PEFT's two files in a zip, in a folder of the adapter's name. */
  async function download(name: string): Promise<void> {
    const files: Record<string, Uint8Array> = {}
    for (const [file, blob] of await loaded().adapterFiles(name))
      files[`${name}/${file}`] = new Uint8Array(await blob.arrayBuffer())
    const url = URL.createObjectURL(new Blob([zipSync(files, { level: 0 })], { type: 'application/zip' }))
    make('a', { href: url, download: `${name}.zip` }).click()
    setTimeout(() => URL.revokeObjectURL(url), 10_000)
  }

  return { show, restore }
}
