import type { Engine } from '../../sdk/browser/index.ts'
import type { ChatMessage } from '../../sdk/index.ts'
import { $, button, make, notice } from './dom.ts'
import { suggestions } from './sample.ts'

/** A conversation: answers come as they are made, and stop when asked to. */
export function wireChat(engine: Engine): { enable(canChat: boolean): void; clear(): void } {
  const messages: ChatMessage[] = []
  const [form, box, send, stop] = [
    $<HTMLFormElement>('chat-form'),
    $<HTMLTextAreaElement>('message'),
    $<HTMLButtonElement>('send'),
    $<HTMLButtonElement>('stop'),
  ]
  let running: AbortController | null = null

  const clear = () => {
    running?.abort()
    messages.length = 0
    $('conversation').replaceChildren()
    $('welcome').hidden = false
  }

  async function ask(question: string): Promise<void> {
    $('welcome').hidden = true
    messages.push({ role: 'user', content: question })
    $('conversation').append(make('li', { class: 'user' }, make('p', {}, question)))
    const [said, told] = [make('div', { class: 'said' }), make('p', { class: 'hint' })]
    const item = make('li', { class: 'model', 'aria-busy': 'true' }, said, told)
    $('conversation').append(item)
    item.scrollIntoView({ block: 'nearest' })
    const controller = new AbortController()
    running = controller
    send.hidden = true
    stop.hidden = false
    let [text, tokens, start, ended] = ['', 0, performance.now(), '']
    try {
      const options = { temperature: 0, contextOverflow: 'dropOldest', signal: controller.signal } as const
      for await (const piece of engine.chat(messages, options)) {
        if (tokens === 0) start = performance.now()
        text += piece.text
        tokens += piece.tokenIds.length
        if (piece.finishReason === 'length') ended = ', cut off'
        said.replaceChildren(...answer(text))
        item.scrollIntoView({ block: 'nearest' })
      }
    } catch (error) {
      if (controller.signal.aborted) ended = ', stopped'
      else notice((error as Error).message)
    }
    const perSecond = (1000 * (tokens - 1)) / (performance.now() - start)
    told.textContent = `${tokens} tokens${tokens > 1 ? `, ${perSecond.toFixed(0)} a second` : ''}${ended}`
    item.removeAttribute('aria-busy')
    if (running === controller) {
      messages.push({ role: 'assistant', content: text })
      running = null
    }
    send.hidden = false
    stop.hidden = true
    if (document.activeElement === document.body) box.focus()
  }

  form.addEventListener('submit', (event) => {
    event.preventDefault()
    const question = box.value.trim()
    if (running || send.disabled || question === '') return
    box.value = ''
    void ask(question)
  })
  box.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
    event.preventDefault()
    form.requestSubmit()
  })
  stop.addEventListener('click', () => running?.abort())
  $('new-chat').addEventListener('click', () => {
    clear()
    box.focus()
  })
  for (const text of suggestions) {
    const choose = button(text, () => {
      if (!running && !send.disabled) void ask(text)
    })
    $('suggestions').append(make('li', {}, choose))
  }
  return {
    enable: (canChat) => {
      send.disabled = !canChat
    },
    clear,
  }
}

/** An answer with its thought, where it has one, set apart. */
export function answer(text: string): HTMLElement[] {
  const [, thought, rest] = /^\s*<think>([\s\S]*?)(?:<\/think>([\s\S]*))?$/.exec(text) ?? [null, '', text]
  const said = (rest ?? '').replace(/<\/?answer>?/g, '').trim()
  return [
    ...(thought.trim() ? [make('p', { class: 'thought' }, thought.trim())] : []),
    ...(said ? [make('p', {}, said)] : []),
  ]
}
