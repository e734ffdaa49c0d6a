import { appendFile } from 'node:fs/promises'
import { parse } from 'yaml'
import { readContent } from '../../data/columns.ts'
import { type Row, readRows } from '../../data/rows.ts'
import { DataError, OptionError } from '../../errors.ts'
import { resolveSampling, samplingNumbers } from '../../generate/sampling.ts'
import { loadAdapter } from '../../load.ts'
import { nearest } from '../../nearest.ts'
import { modelText, withSpeeds } from '../describe.ts'
import { camelCase } from '../names.ts'
import { formatNumber } from '../output.ts'
import { allMessages, type Conversation, undo } from './conversation.ts'
import { historyFile } from './history.ts'

/** What a command says, and what is to be asked next, if anything. */
export interface Outcome {
  readonly say?: string
  readonly ask?: string
  /** The answer that was cut is to go on. */
  readonly goesOn?: boolean
}

interface Command {
  readonly arguments?: string
  readonly help: string
  run(c: Conversation, argument: string): Outcome | Promise<Outcome>
}

const numbers = ['maxNewTokens', ...samplingNumbers] as const

export const commands: Readonly<Record<string, Command>> = {
  help: {
    help: 'this list',
    run: () => ({
      say: [
        ...Object.entries(commands).map(
          ([name, { arguments: a = '', help }]) => `/${`${name} ${a}`.padEnd(22)} ${help}`,
        ),
        '""" begins and ends text of several lines; a \\ at the end of a line goes on in the next.',
        'Ctrl-C ends an answer, or drops what is typed; with nothing typed it leaves, as Ctrl-D does.',
        historyFile() === null
          ? 'What you type is kept nowhere (HALFLING_HISTORY is off).'
          : `What you type is kept in ${historyFile()}; HALFLING_HISTORY=off keeps nothing.`,
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
    help: 'options, adapters, how full the context is, and what the model is',
    async run(c) {
      const { lm, options, messages } = c
      const sampling = resolveSampling({ ...options, seed: options.seed ?? 0 }, lm.generationConfig)
      const tokens =
        messages.length > 0 ? lm.chatPrompt(allMessages(c), { ...options, contextOverflow: 'error' }).length : 0
      const room = lm.model.config.maxPositionEmbeddings
      const shown = numbers.map((name) => {
        if (name === 'maxNewTokens') return `${name} ${lm.maxNewTokens(options) ?? 'all that the context leaves'}`
        return `${name} ${name === 'seed' ? (options.seed ?? 'another each time') : sampling[name]}`
      })
      return {
        say: [
          `${c.name} on ${lm.model.target.name}, ${lm.model.target.info.threads} threads`,
          shown.join(', '),
          `system: ${c.system ?? '-'}; adapters: ${lm.model.activeAdapters.join(', ') || '-'}`,
          `context: ${formatNumber(tokens)} of ${formatNumber(room)} tokens in ${messages.length} messages`,
          modelText(await withSpeeds(lm.description, lm.model.target)),
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
      // Read anew each time: it may have been trained on since.
      const old = model.adapters.get(name)
      model.adapters.delete(name)
      try {
        await loadAdapter(c.lm, name, name)
      } catch (error) {
        if (old) model.adapters.set(name, old)
        await c.lm.setAdapters(before)
        throw error
      }
      return { say: `adapter ${name}` }
    },
  },
  more: {
    help: 'goes on with an answer that was cut, or ended by Ctrl-C',
    run(c) {
      const isLast = c.cut !== null && c.messages.at(-1) === c.cut.message
      return isLast ? { goesOn: true } : { say: 'the last answer was not cut' }
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
      if (!/\.jsonl$/i.test(file))
        throw new OptionError(`'${file}' is no .jsonl file, which conversations are saved in`)
      if (c.messages.length === 0) throw new OptionError('nothing was said yet')
      await appendFile(file, `${JSON.stringify({ messages: allMessages(c) })}\n`)
      return { say: `${c.messages.length} messages in ${file}` }
    },
  },
  load: {
    arguments: '<file.jsonl>',
    help: 'goes on with the last conversation of a file',
    async run(c, file) {
      if (file === '') throw new OptionError('which file?')
      let last: Row | undefined
      for await (const row of readRows(file)) last = row
      if (!last) throw new DataError(`${file}: no rows`)
      const content = readContent(last, { messages: 'messages' })
      if (content.kind !== 'messages') throw new DataError(`${last.place}: it has no messages`)
      const [first, ...rest] = content.messages
      const hasSystem = first.role === 'system' && typeof first.content === 'string'
      c.system = hasSystem ? (first.content as string) : undefined
      c.messages = hasSystem ? rest : [first, ...rest]
      return { say: `${c.messages.length} messages` }
    },
  },
  stats: {
    arguments: '<on|off>',
    help: 'length and speed after each answer',
    run(c, argument) {
      if (argument !== 'on' && argument !== 'off') throw new OptionError(`'${argument}' is neither on nor off`)
      c.stats = argument === 'on'
      return { say: `stats ${argument}` }
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

/** What other programs call them. */
const aliases: Readonly<Record<string, string>> = { '?': 'help', bye: 'exit', quit: 'exit', clear: 'new' }

/** Runs `/name argument`. Throws OptionError naming the nearest command. */
export async function runCommand(c: Conversation, line: string): Promise<Outcome> {
  const [, written, argument] = /^\/(\S*)\s*([\s\S]*)$/.exec(line)!
  const name = Object.hasOwn(aliases, written) ? aliases[written] : written
  if (!Object.hasOwn(commands, name)) {
    const near = nearest(name, Object.keys(commands))
    throw new OptionError(`no command /${name}${near ? `; did you mean /${near}?` : ' (/help lists them)'}`)
  }
  return commands[name].run(c, argument.trim())
}

/** What may stand where a line that begins with / ends: commands, or the options of /set. */
export function completions(line: string): string[] {
  const all = line.startsWith('/set ')
    ? numbers.map((name) => `/set ${name} `)
    : Object.keys(commands).map((name) => `/${name}`)
  return line.startsWith('/') ? all.filter((one) => one.startsWith(line)) : []
}
