/** Milliseconds that work may go on before other work of the thread, a page's typing and drawing, has its turn. */
const slice = 5
let since = 0

/** Called between the pieces of long work: gives way where the last turn is long ago. */
export async function turn(): Promise<void> {
  if (performance.now() - since < slice) return
  await new Promise<void>((resolve) => {
    // Timers of pages wait for 4 ms and more.
    const { port1, port2 } = new MessageChannel()
    port1.onmessage = () => {
      port1.close()
      resolve()
    }
    port2.postMessage(null)
  })
  since = performance.now()
}
