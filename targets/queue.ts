/** Tasks of one target, one after the other, in the order of the calls. */
export class Queue {
  private tail: Promise<unknown> = Promise.resolve()
  private waiting = 0

  /** Whether nothing runs or waits. */
  get isIdle(): boolean {
    return this.waiting === 0
  }

  add<T>(task: () => T | Promise<T>): Promise<T> {
    this.waiting++
    const result = this.tail.then(task).finally(() => {
      this.waiting--
    })
    this.tail = result.catch(() => {})
    return result
  }

  /** At once where nothing runs. What the task throws is nobody's. */
  whenIdle(task: () => void): void {
    if (this.isIdle) task()
    else void this.add(task).catch(() => {})
  }

  /** Until everything asked for so far is done, well or badly. */
  async idle(): Promise<void> {
    await this.tail
  }
}
