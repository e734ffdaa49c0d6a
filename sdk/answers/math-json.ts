/** MathJSON as the parser writes it: a number, a long number as text, a symbol or 'text', or [operator, ...operands]. */
export type MathJson = number | string | { readonly num: string } | MathJson[]

/** Whether the parser understood all of it. */
export function isSound(json: MathJson | undefined): json is MathJson {
  if (!Array.isArray(json)) return json !== undefined && json !== 'Nothing'
  return json[0] !== 'Error' && json.slice(1).every(isSound)
}

/** 3 1/2: a whole number before a fraction of whole numbers that is less than one. */
export function isMixed([whole, fraction, ...more]: readonly MathJson[]): boolean {
  if (more.length > 0 || !isPositive(whole) || !Array.isArray(fraction) || fraction[0] !== 'Divide') return false
  const [, above, below] = fraction
  return isPositive(above) && Number.isInteger(below) && above < (below as number)
}

const isPositive = (json: MathJson): json is number => Number.isInteger(json) && (json as number) > 0
