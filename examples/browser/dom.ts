/** The element of this id. */
export const $ = <T extends HTMLElement = HTMLElement>(id: string): T => document.getElementById(id) as T

type Child = Node | string

/** An element with attributes and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, string>> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}

/** A button that cannot be pressed twice while it works; what it throws is shown. */
export function button(label: string, press: () => Promise<void> | void, className = ''): HTMLButtonElement {
  const made = make('button', { type: 'button', ...(className && { class: className }) }, label)
  made.addEventListener('click', () => void busy(made, press))
  return made
}

export async function busy(control: HTMLButtonElement, work: () => Promise<void> | void): Promise<void> {
  control.disabled = true
  try {
    await work()
  } catch (error) {
    notice((error as Error).message)
  } finally {
    control.disabled = false
  }
}

/** Says something above the page; an empty text takes it away. */
export function notice(text: string): void {
  $('notice').textContent = text
  $('notice').hidden = text === ''
}

export const megabytes = (bytes: number): string =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`

export const percent = (share: number): string => `${Math.round(100 * share)}%`
export const count = (n: number): string => n.toLocaleString('en')

/** Lets a text box and a file chooser take dropped or chosen files: `take` is given the first. */
export function takesFiles(box: HTMLElement, chooser: HTMLInputElement, take: (file: File) => void): void {
  chooser.addEventListener('change', () => {
    if (chooser.files?.[0]) take(chooser.files[0])
  })
  box.addEventListener('dragover', (event) => {
    event.preventDefault()
    box.classList.add('over')
  })
  box.addEventListener('dragleave', () => box.classList.remove('over'))
  box.addEventListener('drop', (event) => {
    box.classList.remove('over')
    const file = event.dataTransfer?.files[0]
    if (!file) return
    event.preventDefault()
    take(file)
  })
}
