/** No text begins so: halves of surrogate pairs, written as JSON writes them. */
const mark = '\\ud800\\ud800'
const token = /-?(?:NaN|Infinity|\d[\d.eE+-]*)/y

/**
 * JSON as Python writes it: an integer beyond 2^53 becomes a bigint, so that no digit is lost; NaN and Infinity are numbers.
 * Throws SyntaxError.
 */
export function parseJson(text: string): unknown {
  if (!/\d{16}|NaN|Infinity/.test(text)) return JSON.parse(text)
  let [plain, from] = ['', 0]
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '"') {
      for (i++; i < text.length && text[i] !== '"'; i++) if (text[i] === '\\') i++
      continue
    }
    token.lastIndex = i
    const found = token.exec(text)?.[0]
    if (found === undefined) continue
    const isBig = /^-?[1-9]\d{15,}$/.test(found) && String(Number(found)) !== found
    if (isBig || /[NI]/.test(found)) {
      plain += `${text.slice(from, i)}"${mark}${found}"`
      from = i + found.length
    }
    i += found.length - 1
  }
  return JSON.parse(plain + text.slice(from), (_, value) => {
    const number = typeof value === 'string' && /^\ud800\ud800(-?(?:NaN|Infinity|\d+))$/.exec(value)?.[1]
    if (!number) return value
    return /[NI]/.test(number) ? Number(number.replace('-N', 'N')) : BigInt(number)
  })
}
