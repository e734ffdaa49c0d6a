/** Bits of the dots of a braille character, [column][row]. */
const dots = [
  [0x01, 0x02, 0x04, 0x40],
  [0x08, 0x10, 0x20, 0x80],
] as const

/** A curve in braille dots, `width` x `height` characters, with the largest and smallest value at its left. */
export function plot(values: readonly number[], width = 60, height = 8): string {
  const finite = values.filter(Number.isFinite)
  if (finite.length === 0) return ''
  const [columns, rows] = [Math.min(2 * width, Math.max(2, finite.length)), 4 * height]
  const means = Array.from({ length: columns }, (_, x) => {
    const from = Math.floor((x * finite.length) / columns)
    const own = finite.slice(from, Math.max(from + 1, Math.floor(((x + 1) * finite.length) / columns)))
    return own.reduce((a, b) => a + b, 0) / own.length
  })
  const [low, high] = [Math.min(...means), Math.max(...means)]
  const rowOf = (value: number) => (high === low ? rows - 1 : Math.round(((high - value) / (high - low)) * (rows - 1)))
  const cells = Array.from({ length: height }, () => new Array<number>(Math.ceil(columns / 2)).fill(0))
  let before = rowOf(means[0])
  means.forEach((mean, x) => {
    const row = rowOf(mean)
    // A vertical stroke joins it with its neighbour.
    const from = before + Math.sign(row - before)
    for (let y = Math.min(row, from); y <= Math.max(row, from); y++) cells[y >> 2][x >> 1] |= dots[x & 1][y & 3]
    before = row
  })
  const labels = cells.map((_, y) => (y === 0 ? high.toPrecision(3) : y === height - 1 ? low.toPrecision(3) : ''))
  const margin = Math.max(...labels.map((label) => label.length))
  return cells
    .map((line, y) => `${labels[y].padStart(margin)} ┤${String.fromCharCode(...line.map((bits) => 0x2800 + bits))}`)
    .join('\n')
}
