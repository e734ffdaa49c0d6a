/** What Progress needs of process.stderr. */
export interface ProgressStream {
  readonly isTTY?: boolean
  readonly columns?: number
  write(text: string): unknown
}

/** Milliseconds: a terminal sees nothing of shorter work, and a log file gets a line this often. */
const [terminalDelay, terminalEvery, lineEvery] = [1000, 100, 10_000]

/** How far something is, with the time left: one line that is drawn over in a terminal, else a line every ten seconds. */
export class Progress {
  private readonly label: string
  private readonly stream: ProgressStream
  private readonly now: () => number
  private readonly start: number
  private first: number | undefined
  private drawnAt: number
  private drawn = false

  constructor(label: string, stream: ProgressStream = process.stderr, now: () => number = () => performance.now()) {
    this.label = label
    this.stream = stream
    this.now = now
    this.start = now()
    this.drawnAt = stream.isTTY ? this.start + terminalDelay - terminalEvery : this.start
  }

  /** `first`: what was done before this run. */
  update(done: number, total: number, details = '', first = 0): void {
    this.first ??= first
    if (!this.isDue()) return
    const left = done > this.first ? ((this.drawnAt - this.start) / (done - this.first)) * (total - done) : Number.NaN
    const parts = [`${this.label} ${Math.floor((100 * done) / total)}%`, details, `${formatTime(left)} left`]
    this.draw(parts.filter(Boolean).join(' | '))
  }

  /** For work whose end is not known. */
  count(done: number, what: string): void {
    if (this.isDue()) this.draw(`${this.label} ${done.toLocaleString('en-US')} ${what}`)
  }

  private isDue(): boolean {
    const now = this.now()
    if (now - this.drawnAt < (this.stream.isTTY ? terminalEvery : lineEvery)) return false
    this.drawnAt = now
    return true
  }

  private draw(line: string): void {
    this.stream.write(this.stream.isTTY ? `\r\x1b[K${line.slice(0, (this.stream.columns || 80) - 1)}` : `${line}\n`)
    this.drawn = true
  }

  /** Wipes the line off a terminal. */
  end(): void {
    if (this.drawn && this.stream.isTTY) this.stream.write('\r\x1b[K')
  }
}

/** Milliseconds as 1:02:03 or 2:03. */
export function formatTime(milliseconds: number): string {
  if (!Number.isFinite(milliseconds)) return '?'
  const seconds = Math.round(milliseconds / 1000)
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60]
  const two = (n: number) => String(n).padStart(2, '0')
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`
}
