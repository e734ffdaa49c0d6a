import { spawn, spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { specialTokens, tagTokens, writeRandomQwen2 } from '../../examples/nano/random-qwen2.ts'
import { trainTokenizer } from '../../examples/nano/tokenizer.ts'
import { commands, completions, runCommand } from '../../sdk/cli/chat/commands.ts'
import type { Conversation } from '../../sdk/cli/chat/conversation.ts'
import { takeLine } from '../../sdk/cli/chat/converse.ts'
import { ThinkDimmer } from '../../sdk/cli/chat/think.ts'
import { tokenizeRows } from '../../sdk/data/tokenize.ts'
import { LanguageModel } from '../../sdk/generate/language-model.ts'
import { loadModel } from '../../sdk/load.ts'
import { SFTTrainer } from '../../sdk/train/sft.ts'
import { cli } from '../built.ts'
import { halfling } from './halfling.ts'

const folder = mkdtempSync(join(tmpdir(), 'halfling-chat-'))
afterAll(() => rm(folder, { recursive: true, force: true }))

describe('lines piped in', () => {
  it('talk, take back, ask again, save, load', async () => {
    const file = join(folder, 'talk.jsonl')
    const input = [
      'What is 17 + 25?',
      '/undo',
      '"""',
      'What is',
      '3 + 4?',
      '"""',
      '/regen',
      `/save ${file}`,
      '/new',
      `/load ${file}`,
      '/show',
      '/exit',
      'not read',
    ]
    const { code, stdout, stderr } = await halfling(['chat'], { input: `${input.join('\n')}\n` })
    expect(code, stderr).toBe(0)
    expect([...stdout.matchAll(/<answer>(\d+)<\/answer>/g)].map((match) => match[1])).toEqual(['42', '7', '7'])
    expect(stderr).toContain('taken back: What is 17 + 25?')
    expect(stderr).toMatch(/context: \d+ of 1,024 tokens in 2 messages/)
    expect(JSON.parse(readFileSync(file, 'utf8')).messages.map((m: { role: string }) => m.role)).toEqual([
      'user',
      'assistant',
    ])
  })

  it('a setting holds from then on; what is wrong is named and ends what has no terminal', async () => {
    const short = await halfling(['chat'], { input: '/set max-new-tokens 3\nWhat is 17 + 25?\n' })
    expect(short.stdout).toBe('<think>\n1\n')
    const wrong = await halfling(['chat'], { input: '/regne\nWhat is 17 + 25?\n' })
    expect(wrong).toMatchObject({ code: 1, stdout: '', stderr: 'error: no command /regne; did you mean /regen?\n' })
  })

  it('a cut answer says so; /more goes on from where it stopped', async () => {
    const whole = await halfling(['chat'], { input: 'What is 17 + 25?\n' })
    expect(whole.stderr).not.toContain('(cut')
    const input = '/more\n/set max_new_tokens 3\nWhat is 17 + 25?\n/set max_new_tokens 100\n/more\n/more\n/show\n'
    const { stdout, stderr, code } = await halfling(['chat'], { input })
    expect([code, stdout]).toEqual([0, whole.stdout.replace('<think>\n1', '<think>\n1\n')])
    expect(stderr.match(/^\(cut .*|^the last answer .*/gm)).toEqual([
      ...[
        'the last answer was not cut',
        '(cut at the limit of 3 tokens: /more goes on)',
        'the last answer was not cut',
      ],
    ])
    expect(stderr).toContain('in 2 messages')
  })

  it('one that is asked for alone names the option, or the end of the context', async () => {
    const { stderr } = await halfling(['chat', '--prompt', 'What is 17 + 25?', '--max-new-tokens', '3'])
    expect(stderr).toBe('(cut at the limit of 3 tokens: --max-new-tokens gives it more)\n')
    const long = await halfling(['generate', '--prompt', 'a'.repeat(1000), '--max-new-tokens', '1000', '--stop', '~'])
    expect(long.stderr).toBe('(the context of 1,024 tokens is full)\n')
  })

  it('asks what a file ends with, be it unfinished', async () => {
    const { code, stdout } = await halfling(['chat', '--max-new-tokens', '3'], { input: '"""\nWhat is\n17 + 25?' })
    expect([code, stdout]).toEqual([0, '<think>\n1\n'])
  })

  it('a model without a chat template is refused at once', async () => {
    const { code, stderr } = await halfling(['chat', '--model', 'nano-base'], { input: 'hi\n' })
    expect(code).toBe(1)
    expect(stderr).toContain('this model has no chat template')
  })
})

describe('commands', () => {
  let c: Conversation
  beforeAll(async () => {
    const lm = await loadModel('nano', { threads: 1 })
    c = { lm, name: 'nano', messages: [], system: undefined, options: {}, stats: false, cut: null, over: false }
  })
  afterAll(() => c.lm.close())
  const say = async (line: string) => (await runCommand(c, line)).say

  it('what is wrong is named, with what is near', async () => {
    const file = join(folder, 'wrong.jsonl')
    writeFileSync(file, '{"messages": [{"role": "user", "content": "hi"}]}\n{"text": "hi"}\n')
    for (const [line, message] of [
      ['/regne', 'no command /regne; did you mean /regen?'],
      ['/xyzzy', 'no command /xyzzy (/help lists them)'],
      ['/constructor', 'no command /constructor (/help lists them)'],
      ['/set temprature 1', "no option 'temprature'; did you mean temperature?"],
      ['/set temperature hot', "temperature: 'hot' is not a number"],
      ['/set temperature', "temperature: '' is not a number"],
      ['/set temperature -1', 'temperature: -1 is not within 0 and 100'],
      ['/set max_new_tokens 0', 'maxNewTokens: 0 is not a positive integer'],
      ['/stats maybe', "'maybe' is neither on nor off"],
      ['/save', "'' is no .jsonl file"],
      ['/save talk.jsonl', 'nothing was said yet'],
      [`/load ${join(folder, 'absent.jsonl')}`, 'no such file'],
      [`/load ${file}`, `${file}:2: its columns are text; wanted: messages`],
    ])
      await expect(runCommand(c, line), line).rejects.toThrow(message)
    expect([c.options, c.messages]).toEqual([{}, []])
  })

  it('set, show, system, stats, other names', async () => {
    expect(await say('/set top_p 0.5')).toBe('topP 0.5')
    expect(await say('/set seed 7')).toBe('seed 7')
    expect(c.options).toEqual({ topP: 0.5, seed: 7 })
    expect(await say('/system Be brief.')).toBe('system: Be brief.')
    expect(await say('/show')).toMatch(
      /^nano on wasm, 1 threads\nmaxNewTokens \d+, .*topP 0.5, .*seed 7\nsystem: Be brief.; adapters: -\ncontext: 0 of 1,024/,
    )
    expect(await say('/system')).toBe('no system message')
    expect([await say('/stats on'), c.stats]).toEqual(['stats on', true])
    expect(await say('/?')).toBe(await say('/help'))
    await runCommand(c, '/bye')
    expect(c.over).toBe(true)
  })

  it('/help tells of every command, and where lines are kept', async () => {
    const help = (await say('/help'))!
    for (const name of Object.keys(commands)) expect(help).toMatch(new RegExp(`^/${name} `, 'm'))
    expect(help).toContain('HALFLING_HISTORY=off')
  })

  it('/save appends rows to train on, /load goes on with the last', async () => {
    const file = join(folder, 'rows.jsonl')
    const talk = (n: number) => [
      { role: 'user', content: `${n}?` },
      { role: 'assistant', content: `${n}.` },
    ]
    c.messages = talk(1)
    await say(`/save ${file}`)
    ;[c.messages, c.system] = [talk(2), 'Count.']
    await say(`/save ${file}`)
    ;[c.messages, c.system] = [[], undefined]
    expect(await say(`/load ${file}`)).toBe('2 messages')
    expect([c.messages, c.system]).toEqual([talk(2), 'Count.'])
    const examples = []
    for await (const example of tokenizeRows(file, c.lm.tokenizer, c.lm.chatTemplate)) examples.push(example)
    expect(examples).toHaveLength(2)
    expect(await say('/undo')).toBe('taken back: 2?')
    expect(c.messages).toEqual([])
    expect(await runCommand(c, '/regen')).toEqual({ say: 'nothing was asked yet' })
  })

  it('/adapter puts one on, reads it anew, and takes it off', async () => {
    const { lm } = c
    const ask = async () => {
      const pieces = lm.chat([{ role: 'user', content: 'What is 17 + 25?' }], { temperature: 0, maxNewTokens: 8 })
      return (await LanguageModel.complete(pieces)).logProbs
    }
    const base = await ask()
    // Two folders of one name, with other numbers.
    const [one, two] = [join(folder, 'a/lora'), join(folder, 'b/lora')]
    for (const [folder, learningRate] of [
      [one, 1e-3],
      [two, 1e-2],
    ] as const) {
      const trainDataset = [{ question: 'What is 17 + 25?', answer: '1' }]
      const args = { outputDir: folder, maxSteps: 2, learningRate, saveStrategy: 'no' } as const
      for await (const _ of new SFTTrainer({ model: lm, trainDataset, peft: { r: 2 }, args }).train());
      await lm.setAdapters([])
    }
    expect(await ask()).toEqual(base)
    expect(await say(`/adapter ${one}`)).toBe(`adapter ${one}`)
    const first = await ask()
    await say(`/adapter ${two}`)
    const second = await ask()
    expect(new Set([base, first, second].map((x) => x.join())).size).toBe(3)
    await expect(runCommand(c, '/adapter nowhere/at/all')).rejects.toThrow('nowhere/at/all')
    expect(lm.model.activeAdapters).toEqual([two])
    // Trained on since.
    cpSync(one, two, { recursive: true })
    await say(`/adapter ${two}`)
    expect(await ask()).toEqual(first)
    expect(await say('/adapter off')).toBe('no adapter')
    expect(await ask()).toEqual(base)
  })

  it('Tab knows commands and options', () => {
    expect(completions('/s')).toEqual(['/system', '/set', '/show', '/save', '/stats'])
    expect(completions('/set top')).toEqual(['/set topK ', '/set topP '])
    expect(completions('hello')).toEqual([])
  })
})

/** A terminal without native modules: util-linux's `script` makes one. */
const noTerminal =
  process.platform === 'linux' && spawnSync('script', ['--version']).status === 0
    ? false
    : 'script (util-linux) is absent'

describe.skipIf(noTerminal)(`in a terminal${noTerminal ? ` (${noTerminal})` : ''}`, () => {
  /** Raw mode: readline draws its prompt, then puts the cursor after it. */
  // biome-ignore lint/suspicious/noControlCharactersInRegex: terminal codes are what is looked for
  const prompted = /> \x1b\[3G$/

  function open(flags: string) {
    const command = `echo pid $$; exec ${process.execPath} ${cli.join(' ')} chat ${flags}`
    // A person's terminal: nothing of CI, NO_COLOR and the like, which switch colours off.
    const { PATH, HOME, LANG } = process.env
    const env = { PATH, HOME, LANG, XDG_STATE_HOME: join(folder, 'state'), TERM: 'xterm-256color' }
    // A shell of its own, so that its number is that of the chat.
    const child = spawn('script', ['-qec', command, '/dev/null'], { env })
    let [screen, at] = ['', 0]
    child.stdout.on('data', (chunk) => {
      screen += chunk
    })
    const ended = new Promise((resolve) => child.on('close', resolve))
    /** Waits until this is shown after what was waited for before. */
    const shown = async (pattern: RegExp) => {
      const until = performance.now() + 30_000
      while (performance.now() < until) {
        const match = pattern.exec(screen.slice(at))
        if (match) {
          at += match.index + match[0].length
          return
        }
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
      throw new Error(`never shown: ${pattern} in ${JSON.stringify(screen.slice(at))}`)
    }
    const type = (text: string) => child.stdin.write(text)
    const signal = () => process.kill(Number(/pid (\d+)/.exec(screen)![1]), 'SIGINT')
    return { child, ended, shown, type, signal, all: () => screen }
  }

  it('answers, dims its thoughts, completes commands, keeps its history; Ctrl-C at the prompt leaves', async () => {
    const { child, ended, shown, type, all } = open('')
    try {
      await shown(prompted)
      type('What is 17 + 25?\r')
      await shown(/answer>42<\/answer>/)
      await shown(prompted)
      expect(all()).toContain('\u001b[2m<think>')
      type('/sho')
      type('\t')
      await shown(/\/show/)
      type('\r')
      await shown(/in 2 messages/)
      await shown(prompted)
      type('/nwe\r')
      await shown(/did you mean \/new\?/)
      await shown(prompted)
      type('half a question\u0003')
      await shown(prompted)
      type('"""unfinished\r')
      await shown(/\. /)
      type('\u0003')
      await shown(prompted)
      type('/show\r')
      await shown(/in 2 messages/)
      await shown(prompted)
      type('\u0003')
      expect(await ended).toBe(130)
    } finally {
      child.kill('SIGKILL')
    }
    const history = join(folder, 'state/halfling/history')
    expect(readFileSync(history, 'utf8').split('\n')).toEqual([
      ...['What is 17 + 25?', '/nwe', '"""unfinished', '/show', ''],
    ])
    // Nobody else's to read.
    expect(statSync(join(folder, 'state/halfling')).mode & 0o777).toBe(0o700)
  })

  it('Ctrl-C, or the signal from elsewhere, ends an answer and keeps what was said of it', async () => {
    const model = join(folder, 'endless')
    const tokenizer = trainTokenizer([], 256, specialTokens, tagTokens)
    const size = { hiddenSize: 64, intermediateSize: 96, numAttentionHeads: 2, numKeyValueHeads: 1 }
    const shape = { ...size, vocabSize: 288, numHiddenLayers: 1, maxPositionEmbeddings: 32_768 }
    await writeRandomQwen2(model, shape, tokenizer, 0)
    const { child, ended, shown, type, signal } = open(`--model ${model} --max-new-tokens 30000`)
    try {
      await shown(prompted)
      type('hi\r')
      await shown(/hi\r+\n[\s\S]{40}/)
      type('\u0003')
      await shown(prompted)
      type('hi\r')
      await shown(/hi\r+\n[\s\S]{40}/)
      signal()
      await shown(prompted)
      type('/show\r')
      await shown(/in 4 messages/)
      await shown(prompted)
      type('\u0004')
      expect(await ended).toBe(0)
    } finally {
      child.kill('SIGKILL')
    }
  })
})

describe('text of several lines', () => {
  const take = (...lines: string[]) => {
    const whole: string[] = []
    let [before, quoted]: [string[], boolean] = [[], false]
    for (const line of lines) {
      const [text, more, inQuotes] = takeLine(before, quoted, line)
      if (!more) whole.push(text.join('\n'))
      ;[before, quoted] = [more ? text : [], inQuotes]
    }
    return { whole, quoted, before }
  }
  it('between """, or after a backslash', () => {
    expect(take('a', 'b').whole).toEqual(['a', 'b'])
    expect(take('"""a', '', 'b"""', 'c').whole).toEqual(['a\n\nb', 'c'])
    expect(take('"""', 'a', '"""').whole).toEqual(['a'])
    expect(take('"""one"""').whole).toEqual(['one'])
    expect(take('a\\', 'b').whole).toEqual(['a\nb'])
    expect(take('"""a').quoted).toBe(true)
  })
})

describe('thinking is dimmed', () => {
  it('whatever pieces the tags come in', () => {
    const text = 'a<think>b < c</think>d<thin'
    const whole = (() => {
      const dimmer = new ThinkDimmer()
      return dimmer.push(text) + dimmer.end()
    })()
    // biome-ignore lint/suspicious/noControlCharactersInRegex: terminal codes are what is looked for
    const plain = (styled: string) => styled.replace(/\x1b\[\d+m/g, '')
    expect(whole).toBe('a\x1b[2m<think>b < c</think>\x1b[22md<thin')
    for (let cut = 1; cut < text.length; cut++) {
      const dimmer = new ThinkDimmer()
      const styled = dimmer.push(text.slice(0, cut)) + dimmer.push(text.slice(cut)) + dimmer.end()
      expect(plain(styled)).toBe(text)
      expect(styled.indexOf('d<thin')).toBeGreaterThan(styled.lastIndexOf('\x1b[22m'))
    }
  })
})
