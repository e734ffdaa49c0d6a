/** Tabs as ARIA has them: one of them is in the order of focus, arrow keys, Home and End go to the others. */
export function wireTabs(list: Element, onShow: (panel: string) => void = () => {}): (panel: string) => void {
  const tabs = [...list.querySelectorAll<HTMLButtonElement>('[role=tab]')]
  const panelOf = (tab: Element) => tab.getAttribute('aria-controls')!
  const show = (name: string) => {
    for (const tab of tabs) {
      const shown = panelOf(tab) === name
      tab.setAttribute('aria-selected', String(shown))
      tab.tabIndex = shown ? 0 : -1
      document.getElementById(panelOf(tab))!.hidden = !shown
    }
    onShow(name)
  }
  for (const [i, tab] of tabs.entries()) {
    tab.addEventListener('click', () => show(panelOf(tab)))
    tab.addEventListener('keydown', ({ key }) => {
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: -1 }[key]
      if (to === undefined) return
      const next = tabs.at(to % tabs.length)!
      next.focus()
      show(panelOf(next))
    })
  }
  show(panelOf(tabs[0]))
  return show
}
