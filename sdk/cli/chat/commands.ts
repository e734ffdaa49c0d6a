import { readFile, writeFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { parse } from 'yaml'
import { DataError, OptionError } from '../../errors.ts'
import { resolveSampling } from '../../generate/sampling.ts'
import { loadAdapter } from '../../load.ts'
import type { ChatMessage } from '../../text/chat-template.ts'
import { camelCase } from '../names.ts'
import { nearest } from '../nearest.ts'
import { formatNumber, formatRate } from '../output.ts'
import { allMessages, type Conversation, undo } from './conversation.ts'

/** What a command says, and what is to be asked next, if anything. */
export interface Outcome {
  readonly say?: string
  readonly ask?: string
}

interface Command {
  readonly arguments?: string
  readonly help: string
  run(c: Conversation, argument: string): Outcome | Promise<Outcome>
}

const numbers = [
  'maxNewTokens',
  'temperature',
  'topK',
  'topP',
  'minP',
  'repetitionPenalty',
  'frequencyPenalty',
  'presencePenalty',
  'seed',
] as const

export const commands: Readonly<Record<string, Command>> = {
  help: {
    help: 'this list',
    run: () => ({
      say: [
        ...Object.entries(commands).map(
          ([name, { arguments: a = '', help }]) => `/${`${name} ${a}`.padEnd(22)} ${help}`,
        ),
        '""" begins and ends text of several lines; a \\ at the end of a line goes on in the next.',
        'Ctrl-C ends an answer, at the prompt it leaves; Ctrl-D leaves. Lines typed are kept in the history file',
        '(HALFLING_HISTORY names another, or off).',
      ].join('\n'),
    }),
  },
  new: {
    help: 'starts over',
    run(c) {
      c.messages = []
      return { say: 'a new conversation' }
    },
  },
  system: {
    arguments: '[text]',
    help: 'sets the system message; without text it goes away',
    run(c, text) {
      c.system = text === '' ? undefined : text
      return { say: text === '' ? 'no system message' : `system: ${text}` }
    },
  },
  set: {
    arguments: '<option> <value>',
    help: numbers.join(', '),
    run(c, argument) {
      const [written = '', ...rest] = argument.split(/\s+/)
      const name = numbers.find((key) => key === camelCase(written))
      if (!name) {
        const near = nearest(camelCase(written), numbers)
        throw new OptionError(`no option '${written}'${near ? `; did you mean ${near}?` : `: ${numbers.join(', ')}`}`)
      }
      const value: unknown = parse(rest.join(' '))
      if (typeof value !== 'number') throw new OptionError(`${name}: '${rest.join(' ')}' is not a number`)
      const options = { ...c.options, [name]: value }
      resolveSampling(options, c.lm.generationConfig)
      c.lm.maxNewTokens(options)
      c.options = options
      return { say: `${name} ${value}` }
    },
  },
  show: {
    help: 'options, adapters, and how full the context is',
    run(c) {
      const { lm, options, messages } = c
      const sampling = resolveSampling({ ...options, seed: options.seed ?? 0 }, lm.generationConfig)
      const tokens =
        messages.length > 0 ? lm.chatPrompt(allMessages(c), { ...options, contextOverflow: 'error' }).length : 0
      const room = lm.model.config.maxPositionEmbeddings
      const shown = numbers.map((name) => {
        if (name === 'maxNewTokens') return `${name} ${lm.maxNewTokens(options)}`
        return `${name} ${name === 'seed' ? (options.seed ?? 'another each time') : sampling[name]}`
      })
      return {
        say: [
          shown.join(', '),
          `system: ${c.system ?? '-'}; adapters: ${lm.model.activeAdapters.join(', ') || '-'}`,
          `context: ${formatNumber(tokens)} of ${formatNumber(room)} tokens in ${messages.length} messages`,
        ].join('\n'),
      }
    },
  },
  adapter: {
    arguments: '<folder|off>',
    help: 'puts on a PEFT adapter in place of the one that is on, or takes it off',
    async run(c, name) {
      if (name === '') throw new OptionError('which adapter? A PEFT folder, org/name, or off')
      const { model } = c.lm
      const before = [...model.activeAdapters]
      await c.lm.setAdapters([])
      if (name === 'off') return { say: 'no adapter' }
      const known = basename(name)
      try {
        if (model.adapters.has(known)) await c.lm.setAdapters([known])
        else await loadAdapter(c.lm, name)
      } catch (error) {
        await c.lm.setAdapters(before)
        throw error
      }
      return { say: `adapter ${known}` }
    },
  },
  regen: {
    help: 'asks the last question again',
    run(c) {
      const question = undo(c)
      return question === undefined ? { say: 'nothing was asked yet' } : { ask: question }
    },
  },
  undo: {
    help: 'takes back the last question and its answer',
    run(c) {
      const question = undo(c)
      return { say: question === undefined ? 'nothing was asked yet' : `taken back: ${question}` }
    },
  },
  save: {
    arguments: '<file.jsonl>',
    help: 'appends the conversation as a row of messages, ready to train on',
    async run(c, file) {
      if (file === '') throw new OptionError('which file?')
      if (c.messages.length === 0) throw new OptionError('nothing was said yet')
      await writeFile(file, `${JSON.stringify({ messages: allMessages(c) })}\n`, { flag: 'a' })
      return { say: `${c.messages.length} messages in ${file}` }
    },
  },
  load: {
    arguments: '<file.jsonl>',
    help: 'goes on with the last conversation of a file',
    async run(c, file) {
      const line = (await readFile(file, 'utf8')).trim().split('\n').at(-1)!
      let messages: ChatMessage[] | undefined
      try {
        messages = JSON.parse(line).messages
      } catch (cause) {
        throw new DataError(`${file}: its last line is not JSON`, { cause })
      }
      if (!Array.isArray(messages) || messages.some((message) => typeof message?.role !== 'string'))
        throw new DataError(`${file}: its last line has no messages`)
      const system = messages[0]?.role === 'system' ? messages[0] : undefined
      c.system = system === undefined ? undefined : String(system.content)
      c.messages = system ? messages.slice(1) : messages
      return { say: `${c.messages.length} messages` }
    },
  },
  stats: {
    arguments: '[on|off]',
    help: 'speed of the last answer, or of each from now on',
    run(c, argument) {
      if (argument === 'on' || argument === 'off') c.stats = argument === 'on'
      else if (argument !== '') throw new OptionError(`'${argument}' is neither on nor off`)
      return { say: c.last ? statsOf(c.last) : `stats ${c.stats ? 'on' : 'off'}` }
    },
  },
  exit: {
    help: 'leaves',
    run(c) {
      c.over = true
      return {}
    },
  },
}

export const statsOf = ({
  tokenIds,
  prefillTokensPerSecond,
  decodeTokensPerSecond,
  finishReason,
}: NonNullable<Conversation['last']>) =>
  `${tokenIds.length} tokens, ${formatRate(decodeTokensPerSecond)} (prompt ${formatRate(prefillTokensPerSecond)}), ${finishReason}`

/** Runs `/name argument`. Throws OptionError naming the nearest command. */
export async function runCommand(c: Conversation, line: string): Promise<Outcome> {
  const [, name, argument] = /^\/(\S*)\s*([\s\S]*)$/.exec(line)!
  if (!Object.hasOwn(commands, name)) {
    const near = nearest(name, Object.keys(commands))
    throw new OptionError(`no command /${name}${near ? `; did you mean /${near}?` : ' (/help lists them)'}`)
  }
  return commands[name].run(c, argument.trim())
}
