// npm run page: a page where a person chats with a small model and teaches it something.

import { openEngine } from '../../sdk/browser/index.ts'
import { wireAdapters } from './adapters.ts'
import { wireChat } from './chat.ts'
import { $, notice } from './dom.ts'
import { wireModels } from './models.ts'
import { wireTabs } from './tabs.ts'
import { wireTeach } from './teach.ts'

const [sections, methods] = document.querySelectorAll('[role=tablist]')
try {
  const engine = await openEngine({
    onDeviceLost: () => notice('The GPU was lost; going on with another.'),
  })
  // For the console, and for tests.
  Object.assign(globalThis, { engine })
  const chat = wireChat(engine)
  const adapters = wireAdapters(engine)
  const teach = wireTeach(engine, adapters.show)
  const show = wireTabs(sections)
  wireTabs(methods)
  document.querySelector('#no-adapters a')!.addEventListener('click', (event) => {
    event.preventDefault()
    show('teach')
    $('tab-teach').focus()
  })
  wireModels(engine, async (info) => {
    chat.enable(info?.chats ?? false)
    chat.clear()
    if (info) await adapters.restore()
    await teach.modelChanged(info)
  })
} catch (error) {
  notice(`This browser cannot run it: ${(error as Error).message}`)
}
