import { styleText } from 'node:util'

const [open, close] = ['<think>', '</think>']

/** Dims what stands between <think> and </think>, though the text comes in pieces that may cut a tag in two. */
export class ThinkDimmer {
  private held = ''
  private thinking = false

  push(text: string): string {
    this.held += text
    let out = ''
    for (;;) {
      const tag = this.thinking ? close : open
      const at = this.held.indexOf(tag)
      if (at < 0) break
      const end = this.thinking ? at + tag.length : at
      out += this.styled(this.held.slice(0, end))
      this.held = this.held.slice(end)
      this.thinking = !this.thinking
    }
    // What may be the beginning of a tag waits for the rest.
    const tag = this.thinking ? close : open
    let keep = Math.min(tag.length - 1, this.held.length)
    while (keep > 0 && !tag.startsWith(this.held.slice(this.held.length - keep))) keep--
    out += this.styled(this.held.slice(0, this.held.length - keep))
    this.held = this.held.slice(this.held.length - keep)
    return out
  }

  end(): string {
    const rest = this.styled(this.held)
    this.held = ''
    return rest
  }

  private styled(text: string): string {
    return this.thinking && text !== '' ? styleText('dim', text, { validateStream: false }) : text
  }
}
