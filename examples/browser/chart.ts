const svg = 'http://www.w3.org/2000/svg'

function shape(tag: string, attributes: Readonly<Record<string, string | number>>, text = ''): SVGElement {
  const element = document.createElementNS(svg, tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value))
  element.textContent = text
  return element
}

/** Round numbers that cover [low, high], about `count` of them. */
export function ticks(low: number, high: number, count = 4): number[] {
  const rough = (high - low || 1) / count
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough)!
  const first = Math.floor(low / step + 1e-9)
  const last = Math.ceil(high / step - 1e-9)
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)))
}

export interface ChartOptions {
  readonly title: string
  readonly format: (value: number) => string
  /** The y axis shows at least this. */
  readonly range: readonly [low: number, high: number]
  /** Few values: a dot each. */
  readonly dots?: boolean
}

/** Values by step as a line, with axes and the last value; drawn again when it has another width. */
export class Chart {
  readonly figure = document.createElement('figure')
  private readonly picture = shape('svg', { role: 'img' }) as SVGSVGElement
  private readonly last = document.createElement('strong')
  private readonly options: ChartOptions
  private points: [step: number, value: number][] = []
  private steps = 1

  constructor(options: ChartOptions) {
    this.options = options
    const caption = document.createElement('figcaption')
    caption.append(options.title, this.last)
    this.figure.append(caption, this.picture)
    this.figure.className = 'chart'
    new ResizeObserver(() => this.draw()).observe(this.figure)
  }

  /** The x axis ends at `steps`. */
  set(points: readonly (readonly [step: number, value: number])[], steps: number): void {
    this.points = points.map(([step, value]) => [step, value])
    this.steps = steps
    this.draw()
  }

  add(step: number, value: number): void {
    this.points.push([step, value])
    this.draw()
  }

  private draw(): void {
    const { title, format, range, dots } = this.options
    const width = Math.max(240, this.figure.clientWidth)
    const height = 180
    const [left, right, top, bottom] = [44, 10, 10, 34]
    const values = this.points.map(([, value]) => value)
    const marks = ticks(Math.min(range[0], ...values), Math.max(range[1], ...values))
    const [low, high] = [marks[0], marks.at(-1)!]
    const x = (step: number) => left + (step / this.steps) * (width - left - right)
    const y = (value: number) => top + (1 - (value - low) / (high - low)) * (height - top - bottom)
    const parts: SVGElement[] = []
    for (const mark of marks) {
      parts.push(shape('line', { class: 'grid', x1: left, x2: width - right, y1: y(mark), y2: y(mark) }))
      parts.push(shape('text', { x: left - 6, y: y(mark) + 4, 'text-anchor': 'end' }, format(mark)))
    }
    for (const mark of ticks(0, this.steps).filter((step) => Number.isInteger(step) && step <= this.steps))
      parts.push(shape('text', { x: x(mark), y: height - bottom + 15, 'text-anchor': 'middle' }, String(mark)))
    parts.push(shape('text', { x: (left + width - right) / 2, y: height - 3, 'text-anchor': 'middle' }, 'step'))
    const line = this.points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`)
    parts.push(shape('polyline', { class: 'line', points: line.join(' ') }))
    for (const [step, value] of dots ? this.points : this.points.slice(-1))
      parts.push(shape('circle', { class: 'dot', cx: x(step), cy: y(value), r: 3.5 }))
    const last = this.points.at(-1)
    this.last.textContent = last ? format(last[1]) : ''
    this.picture.setAttribute('viewBox', `0 0 ${width} ${height}`)
    this.picture.setAttribute(
      'aria-label',
      last
        ? `${title}: ${format(this.points[0][1])} at step ${this.points[0][0]}, ${format(last[1])} at step ${last[0]}`
        : `${title}: no values yet`,
    )
    this.picture.replaceChildren(...parts)
  }
}
