import { createInterface } from 'node:readline'
import { type Command, Option } from 'commander'
import { HalflingError } from '../../errors.ts'
import type { ChatOptions, LanguageModel } from '../../generate/language-model.ts'
import type { ChatMessage } from '../../text/chat-template.ts'
import { printAnswer } from '../answer.ts'
import { Interrupted, UsageError } from '../errors.ts'
import { interruptible } from '../interrupt.ts'
import { withModel } from '../open-model.ts'
import {
  addJson,
  addModel,
  addSampling,
  type JsonFlag,
  type ModelFlags,
  type SamplingFlags,
  samplingOf,
} from '../options.ts'
import { log } from '../output.ts'

interface Flags extends JsonFlag, ModelFlags, SamplingFlags {
  readonly prompt?: string
  readonly system?: string
  readonly contextOverflow?: ChatOptions['contextOverflow']
}

export function addChat(program: Command): void {
  const command = program.command('chat').description('talks, through the chat template of the model')
  addModel(command)
    .option('--prompt <text>', 'one turn only')
    .option('--system <text>', 'system message')
    .addOption(
      new Option('--context-overflow <policy>', 'when the conversation outgrows the context').choices([
        'error',
        'dropOldest',
      ]),
    )
  addJson(addSampling(command)).action(async (flags: Flags) => {
    const { prompt, system, json, contextOverflow } = flags
    if (json && prompt === undefined) throw new UsageError("'--json' needs '--prompt <text>'")
    const opening: ChatMessage[] = system === undefined ? [] : [{ role: 'system', content: system }]
    const options: ChatOptions = { ...samplingOf(flags), contextOverflow }
    await interruptible((signal) =>
      withModel(flags, signal, async (lm, loadSeconds) => {
        if (prompt === undefined) return converse(lm, opening, { contextOverflow: 'dropOldest', ...options }, signal)
        const messages = [...opening, { role: 'user', content: prompt }]
        await printAnswer(lm, lm.chat(messages, { ...options, signal }), loadSeconds, json)
      }),
    )
  })
}

/** Lines in, answers out, until the input ends. Ctrl-C ends an answer; between answers it ends the program. */
async function converse(
  lm: LanguageModel,
  opening: readonly ChatMessage[],
  options: ChatOptions,
  interrupted: AbortSignal,
): Promise<void> {
  const terminal = process.stdin.isTTY && process.stdout.isTTY
  const input = createInterface({ input: process.stdin, output: terminal ? process.stdout : undefined, prompt: '> ' })
  let answering: AbortController | null = null
  let left = false
  const stop = () => {
    if (answering) return answering.abort(new Interrupted())
    left = true
    input.close()
  }
  input.on('SIGINT', stop)
  interrupted.addEventListener('abort', stop)
  if (terminal) log('Ctrl-C ends an answer, /new starts over, Ctrl-D leaves.')
  let messages = [...opening]
  const ask = () => {
    if (terminal) input.prompt()
  }
  try {
    ask()
    for await (const line of input) {
      if (line.trim() === '/new') messages = [...opening]
      else if (line.trim() !== '') {
        messages.push({ role: 'user', content: line })
        answering = new AbortController()
        try {
          const { text } = await printAnswer(lm, lm.chat(messages, { ...options, signal: answering.signal }), 0, false)
          messages.push({ role: 'assistant', content: text })
        } catch (error) {
          // Without a terminal there is nobody to go on talking.
          if (!terminal || !(error instanceof Interrupted || error instanceof HalflingError)) throw error
          messages.pop()
          log(error instanceof Interrupted ? '' : `error: ${error.message}`)
        } finally {
          answering = null
        }
      }
      ask()
    }
    if (left) throw new Interrupted()
  } finally {
    input.close()
  }
}
