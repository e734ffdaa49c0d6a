// npm run page: a page where a person chats with a small model and teaches it something.

import { wireAdapters } from './adapters.ts'
import { wireChat } from './chat.ts'
import { $, notice } from './dom.ts'
import { wireModels } from './models.ts'
import { wireTabs } from './tabs.ts'
import { wireTeach } from './teach.ts'

const [sections, methods] = document.querySelectorAll('[role=tablist]')
try {
  const chat = wireChat()
  const adapters = wireAdapters()
  const teach = wireTeach(adapters.show)
  const show = wireTabs(sections)
  wireTabs(methods)
  document.querySelector('#no-adapters a')!.addEventListener('click', (event) => {
    event.preventDefault()
    show('teach')
    $('tab-teach').focus()
  })
  wireModels(async (model) => {
    chat.enable(model !== null && model.chatTemplate !== null)
    chat.clear()
    if (model) await adapters.restore()
    await teach.modelChanged()
  })
} catch (error) {
  notice(`This browser cannot run it: ${(error as Error).message}`)
}
