import { type Command, Option } from 'commander'
import type { ChatOptions } from '../../generate/language-model.ts'
import { requireChatTemplate } from '../../text/chat-template.ts'
import { oneAnswer, printAnswer } from '../answer.ts'
import { converse } from '../chat/converse.ts'
import { UsageError } from '../errors.ts'
import { interruptible } from '../interrupt.ts'
import { openModel, withModel } from '../open-model.ts'
import {
  addJson,
  addModel,
  addPrecision,
  addSampling,
  type JsonFlag,
  type ModelFlags,
  type SamplingFlags,
  samplingOf,
} from '../options.ts'

interface Flags extends JsonFlag, ModelFlags, SamplingFlags {
  readonly prompt?: string
  readonly system?: string
  readonly contextOverflow?: ChatOptions['contextOverflow']
}

export function addChat(program: Command): void {
  const command = program.command('chat').description('talks, through the chat template of the model')
  addPrecision(addModel(command))
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
    const options: ChatOptions = { ...samplingOf(flags), contextOverflow }
    if (prompt !== undefined)
      return interruptible((signal) =>
        withModel(flags, signal, async (lm, loadSeconds) => {
          const opening = system === undefined ? [] : [{ role: 'system', content: system }]
          const messages = [...opening, { role: 'user', content: prompt }]
          const limit = lm.maxNewTokens(options)
          const pieces = lm.chat(messages, { ...options, signal })
          await printAnswer(lm, pieces, { loadSeconds, json, limit, more: oneAnswer })
        }),
      )
    // Once it talks, Ctrl-C is the conversation's: it ends an answer, not the program.
    const { lm } = await interruptible((signal) => openModel(flags, signal))
    try {
      const talking = { contextOverflow: 'dropOldest' as const, ...options }
      requireChatTemplate(lm.chatTemplate)
      const [name, stats] = [flags.model ?? 'nano', Boolean(process.stderr.isTTY)]
      await converse({ lm, name, messages: [], system, options: talking, stats, cut: null, over: false })
    } finally {
      await lm.close()
    }
  })
}
