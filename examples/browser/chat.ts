import type { ChatMessage } from '../../sdk/index.ts'
import { $, button, make, notice } from './dom.ts'
import { loaded } from './model.ts'
import { suggestions } from './sample.ts'

/** A conversation: answers come as they are made, and stop when asked to. */
export function wireChat(): { enable(canChat: boolean): void; clear(): void } {
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

  function ask(question: string): Promise<void> {
    $('welcome').hidden = true
    messages.push({ role: 'user', content: question })
    $('conversation').append(make('li', { class: 'user' }, make('p', {}, question)))
    const item = make('li', { class: 'model' }, make('div', { class: 'said' }), make('p', { class: 'hint' }))
    $('conversation').append(item)
    return reply(item, '', [])
  }

  /** An answer into its item of the list, after what was said of it already. */
  async function reply(item: HTMLElement, begun: string, answerPrefix: readonly number[]): Promise<void> {
    for (const old of $('conversation').querySelectorAll('button')) old.remove()
    const [said, told] = item.children
    item.setAttribute('aria-busy', 'true')
    item.scrollIntoView({ block: 'nearest' })
    const controller = new AbortController()
    running = controller
    send.hidden = true
    stop.hidden = false
    const tokenIds = [...answerPrefix]
    let [text, start, ended] = [begun, performance.now(), '']
    const perSecond = () => (1000 * (tokenIds.length - answerPrefix.length - 1)) / (performance.now() - start)
    try {
      const options = {
        temperature: 0,
        contextOverflow: 'dropOldest',
        answerPrefix,
        signal: controller.signal,
      } as const
      for await (const piece of loaded().chat(messages, options)) {
        if (tokenIds.length === answerPrefix.length) start = performance.now()
        text += piece.text
        tokenIds.push(...piece.tokenIds)
        if (piece.finishReason === 'length') ended = ', cut off'
        said.replaceChildren(...answer(text))
        item.scrollIntoView({ block: 'nearest' })
      }
    } catch (error) {
      if (controller.signal.aborted) ended = ', stopped'
      else notice((error as Error).message)
    }
    const speed = tokenIds.length > answerPrefix.length + 1 ? `, ${perSecond().toFixed(0)} a second` : ''
    told.textContent = `${tokenIds.length} tokens${speed}${ended}`
    item.removeAttribute('aria-busy')
    if (running === controller) {
      const message = { role: 'assistant', content: text }
      messages.push(message)
      running = null
      if (ended !== '') told.append(' ', goOn(item, message, tokenIds))
    }
    send.hidden = false
    stop.hidden = true
    if (document.activeElement === document.body) box.focus()
  }

  /** For the last answer, where it did not come to its end. */
  const goOn = (item: HTMLElement, { content }: ChatMessage, tokenIds: readonly number[]): HTMLButtonElement =>
    button('Go on', () => {
      messages.pop()
      return reply(item, String(content).replace(/\ufffd$/, ''), tokenIds)
    })

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
