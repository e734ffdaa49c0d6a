import { describe, expect, it } from 'vitest'
import { plot } from '../../sdk/cli/plot.ts'
import { formatTime, Progress } from '../../sdk/cli/progress.ts'

/** A stream that remembers, and a clock that is set. */
function watched(isTTY: boolean, columns = 80) {
  const written: string[] = []
  const clock = { now: 0 }
  const stream = { isTTY, columns, write: (text: string) => written.push(text) }
  return { written, clock, progress: new Progress('training', stream, () => clock.now) }
}

describe('Progress', () => {
  it('draws over one line in a terminal, after a second', () => {
    const { written, clock, progress } = watched(true)
    for (const [at, done] of [
      [500, 5],
      [1000, 10],
      [1050, 11],
      [2000, 20],
    ]) {
      clock.now = at
      progress.update(done, 100, `step ${done}`)
    }
    progress.end()
    expect(written).toEqual([
      '\r\x1b[Ktraining 10% | step 10 | 0:09 left',
      '\r\x1b[Ktraining 20% | step 20 | 0:08 left',
      '\r\x1b[K',
    ])
  })

  it('writes a line every ten seconds into a file, and no control characters', () => {
    const { written, clock, progress } = watched(false)
    for (let step = 1; step <= 50; step++) {
      clock.now = step * 500
      progress.update(step, 100)
    }
    progress.end()
    expect(written).toEqual(['training 20% | 0:40 left\n', 'training 40% | 0:30 left\n'])
  })

  it('reckons the time left from what this run did itself', () => {
    const { written, clock, progress } = watched(false)
    clock.now = 10_000
    progress.update(91, 100, '', 90)
    expect(written).toEqual(['training 91% | 1:30 left\n'])
  })

  it('never wraps', () => {
    const { written, clock, progress } = watched(true, 20)
    clock.now = 3000
    progress.update(1, 2, 'x'.repeat(100))
    expect(written[0]).toHaveLength('\r\x1b[K'.length + 19)
  })
})

it('formatTime', () => {
  expect([0, 59_600, 3_723_000, Number.NaN].map(formatTime)).toEqual(['0:00', '1:00', '1:02:03', '?'])
})

describe('plot', () => {
  it('draws a falling line from corner to corner', () => {
    const falling = Array.from({ length: 8 }, (_, i) => 7 - i)
    expect(plot(falling, 4, 2)).toBe(['7.00 ┤⠑⢄⠀⠀', '0.00 ┤⠀⠀⠑⢄'].join('\n'))
  })

  it('takes means where there are more values than dots, and leaves out what is no number', () => {
    const values = Array.from({ length: 16 }, (_, i) => 7.5 - Math.floor(i / 2) + (i % 2) - 0.5 - 0.5)
    expect(plot([Number.NaN, ...values], 4, 2)).toContain('⠑⢄')
  })

  it('is a flat line for one value and nothing for none', () => {
    expect(plot([3, 3, 3, 3], 2, 1)).toBe('3.00 ┤⣀⣀')
    expect(plot([])).toBe('')
  })
})
