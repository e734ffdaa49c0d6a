import { createInterface } from 'node:readline'
import { HalflingError } from '../../errors.ts'
import { printAnswer } from '../answer.ts'
import { Interrupted } from '../errors.ts'
import { log } from '../output.ts'
import { completions, runCommand } from './commands.ts'
import { allMessages, type Conversation } from './conversation.ts'
import { historySize, readHistory, writeHistory } from './history.ts'

/** Lines in, answers out, until the input ends, /exit, or Ctrl-C at the prompt (or twice). */
export async function converse(c: Conversation): Promise<void> {
  const terminal = Boolean(process.stdin.isTTY && process.stdout.isTTY)
  const history = terminal ? await readHistory() : []
  const input = createInterface({
    input: process.stdin,
    output: terminal ? process.stdout : undefined,
    prompt: '> ',
    history,
    historySize,
    removeHistoryDuplicates: true,
    completer: (line: string) => [completions(line), line],
  })
  let typed = [...history]
  input.on('history', (lines: string[]) => {
    typed = [...lines]
  })
  let answering: AbortController | null = null
  let left = false
  let lines: string[] = []
  let quoted = false
  const interrupt = () => {
    if (answering && !answering.signal.aborted) return answering.abort(new Interrupted())
    if (!answering && terminal && (input.line !== '' || lines.length > 0 || quoted)) {
      ;[lines, quoted] = [[], false]
      // To its end, away with it, and on in a new line.
      input.write(null, { ctrl: true, name: 'e' })
      process.stdout.write('\n')
      input.write(null, { ctrl: true, name: 'u' })
      return ask()
    }
    left = true
    input.close()
  }
  // Raw terminals tell readline of Ctrl-C; everything else sends the signal.
  input.on('SIGINT', interrupt)
  process.on('SIGINT', interrupt)

  /** Asks; without a question the answer that was cut goes on. */
  const answer = async (question?: string) => {
    const from = question === undefined ? c.cut : null
    if (from) c.messages.pop()
    else c.messages.push({ role: 'user', content: question })
    answering = new AbortController()
    // A character that was cut in two becomes whole.
    let said = from ? String(from.message.content).replace(/\ufffd$/, '') : ''
    const tokenIds = [...(from?.tokenIds ?? [])]
    const keep = (isCut: boolean) => {
      const message = { role: 'assistant', content: said }
      c.messages.push(message)
      c.cut = isCut ? { message, tokenIds } : null
    }
    try {
      const pieces = c.lm.chat(allMessages(c), {
        ...c.options,
        answerPrefix: from?.tokenIds,
        signal: answering.signal,
      })
      const heard = (async function* () {
        for await (const piece of pieces) {
          said += piece.text
          tokenIds.push(...piece.tokenIds)
          yield piece
        }
      })()
      const limit = c.lm.maxNewTokens(c.options)
      const { finishReason } = await printAnswer(c.lm, heard, { stats: c.stats, limit, more })
      keep(finishReason === 'length')
    } catch (error) {
      // What was said before Ctrl-C stays said.
      if (from || (error instanceof Interrupted && said !== '')) keep(true)
      else c.messages.pop()
      throw error
    } finally {
      answering = null
    }
  }
  const turn = async (line: string) => {
    if (!line.startsWith('/')) return answer(line)
    const { say, ask, goesOn } = await runCommand(c, line)
    if (say !== undefined) log(say)
    if (ask !== undefined || goesOn) await answer(ask)
  }

  if (terminal) log('/help lists the commands. Ctrl-C ends an answer, Ctrl-D leaves.')
  const ask = () => {
    if (!terminal || left) return
    input.setPrompt(lines.length > 0 || quoted ? '. ' : '> ')
    input.prompt()
  }
  try {
    ask()
    for await (const line of input) {
      const [text, more, inQuotes] = takeLine(lines, quoted, line)
      lines = more ? text : []
      quoted = inQuotes
      const whole = text.join('\n')
      if (!more && whole.trim() !== '') {
        try {
          await turn(whole)
        } catch (error) {
          // Without a terminal there is nobody to go on talking.
          if (!terminal || !isTold(error)) throw error
          log(error instanceof Interrupted ? '' : `error: ${(error as Error).message}`)
        }
      }
      if (c.over || left) break
      ask()
    }
    if (left) throw new Interrupted()
    // A file that ends within """ was meant to be asked all the same.
    if (!terminal && !c.over && lines.join('').trim() !== '') await turn(lines.join('\n'))
  } finally {
    process.off('SIGINT', interrupt)
    input.close()
    // The prompt stands at the end of its line.
    if (terminal && !c.over) process.stdout.write('\n')
    if (terminal) await writeHistory(typed)
  }
}

const more = { limit: ': /more goes on', full: ': /more goes on where older turns can be forgotten, /new starts over' }

const isTold = (error: unknown): boolean =>
  error instanceof Interrupted ||
  error instanceof HalflingError ||
  typeof (error as NodeJS.ErrnoException).code === 'string'

/** Text of several lines: """ begins and ends it, a backslash at the end goes on. Returns the lines, whether more follow, and quotes. */
export function takeLine(before: readonly string[], quoted: boolean, line: string): [string[], boolean, boolean] {
  if (quoted) {
    if (!line.endsWith('"""')) return [[...before, line], true, true]
    const last = line.slice(0, -3)
    return [last === '' ? [...before] : [...before, last], false, false]
  }
  if (before.length === 0 && line.trimStart().startsWith('"""')) {
    const first = line.trimStart().slice(3)
    if (first.length >= 3 && first.endsWith('"""')) return [[first.slice(0, -3)], false, false]
    return [first === '' ? [] : [first], true, true]
  }
  if (line.endsWith('\\')) return [[...before, line.slice(0, -1)], true, false]
  return [[...before, line], false, false]
}
