import { describe, expect, it } from 'vitest'
import { pageThread } from '../sdk/thread.ts'

/** A page's Worker, as far as pageThread sees one. */
const fake = () => ({
  sent: [] as unknown[],
  ended: 0,
  onmessage: (_: { data: unknown }) => {},
  onerror: (_: { message: string; preventDefault(): void }) => {},
  postMessage(message: unknown) {
    this.sent.push(message)
  },
  terminate() {
    this.ended++
  },
})

describe('a thread', () => {
  it('answers one message after another', async () => {
    const worker = fake()
    const thread = pageThread(worker as unknown as Worker)
    const first = thread.ask<number>('a', 1)
    worker.onmessage({ data: 1 })
    expect(await first).toBe(1)
    const second = thread.ask<number>('b', 1)
    worker.onmessage({ data: 2 })
    expect(await second).toBe(2)
    expect(worker.sent).toEqual(['a', 'b'])
    await thread.end()
    expect(worker.ended).toBe(1)
  })

  it('that does not answer in time is told of, and may still answer the next', async () => {
    const worker = fake()
    const thread = pageThread(worker as unknown as Worker)
    await expect(thread.ask('a', 0.01)).rejects.toThrow('it took more than 0.01 s')
    const next = thread.ask('b', 1)
    worker.onmessage({ data: 3 })
    expect(await next).toBe(3)
  })

  it('that died says so at once, to whom it kept waiting and to whoever asks it later', async () => {
    const worker = fake()
    const thread = pageThread(worker as unknown as Worker)
    const waiting = thread.ask('a', 60)
    worker.onerror({ message: '', preventDefault() {} })
    await expect(waiting).rejects.toThrow('its script cannot be loaded')
    await expect(thread.ask('b', 60)).rejects.toThrow('its script cannot be loaded')
    expect(worker.sent).toEqual(['a'])
  })
})
