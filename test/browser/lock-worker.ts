// Runs in a Worker: opens a file of the browser's storage for itself alone.
addEventListener('message', async ({ data: path }: MessageEvent<string>) => {
  try {
    const parts = path.split('/')
    let folder = await navigator.storage.getDirectory()
    for (const part of parts.slice(0, -1)) folder = await folder.getDirectoryHandle(part)
    const file = await folder.getFileHandle(parts.at(-1)!)
    // Not in the types of pages.
    await (file as unknown as { createSyncAccessHandle(): Promise<unknown> }).createSyncAccessHandle()
    postMessage('locked')
  } catch (error) {
    postMessage(String(error))
  }
})
