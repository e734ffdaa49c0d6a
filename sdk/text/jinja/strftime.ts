const days = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']
const months = [
  ...['January', 'February', 'March', 'April', 'May', 'June'],
  ...['July', 'August', 'September', 'October', 'November', 'December'],
]

/** datetime.now().strftime(format), in English. Throws for a directive that is not there. */
export function strftime(format: string, now = new Date()): string {
  const two = (n: number) => String(n).padStart(2, '0')
  const [year, month, day, hour] = [now.getFullYear(), now.getMonth(), now.getDate(), now.getHours()]
  const [minute, second, weekday] = [now.getMinutes(), now.getSeconds(), now.getDay()]
  const ofYear = Math.round((Date.UTC(year, month, day) - Date.UTC(year, 0, 1)) / 86_400_000)
  const directives: Readonly<Record<string, () => string>> = {
    Y: () => String(year),
    y: () => two(year % 100),
    m: () => two(month + 1),
    d: () => two(day),
    e: () => String(day).padStart(2),
    H: () => two(hour),
    I: () => two(((hour + 11) % 12) + 1),
    M: () => two(minute),
    S: () => two(second),
    f: () => String(now.getMilliseconds() * 1000).padStart(6, '0'),
    p: () => (hour < 12 ? 'AM' : 'PM'),
    A: () => days[weekday],
    a: () => days[weekday].slice(0, 3),
    B: () => months[month],
    b: () => months[month].slice(0, 3),
    j: () => String(ofYear + 1).padStart(3, '0'),
    w: () => String(weekday),
    u: () => String(((weekday + 6) % 7) + 1),
    F: () => `${year}-${two(month + 1)}-${two(day)}`,
    T: () => `${two(hour)}:${two(minute)}:${two(second)}`,
    z: () => '',
    Z: () => '',
    '%': () => '%',
  }
  return format.replace(/%(-?)(.?)/g, (whole, dash: string, letter: string) => {
    if (!Object.hasOwn(directives, letter)) throw new Error(`strftime_now: ${whole} is not supported`)
    const text = directives[letter]()
    return dash ? text.replace(/^0+(?=\d)/, '') : text
  })
}
