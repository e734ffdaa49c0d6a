import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { specialTokens, tagTokens, writeRandomQwen2 } from '../../examples/nano/random-qwen2.ts'
import { trainTokenizer } from '../../examples/nano/tokenizer.ts'
import { takeLine } from '../../sdk/cli/chat/converse.ts'
import { ThinkDimmer } from '../../sdk/cli/chat/think.ts'
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
    const wrong = [
      ['/regne', 'no command /regne; did you mean /regen?'],
      ['/set temprature 1', "no option 'temprature'; did you mean temperature?"],
      ['/set temperature hot', "temperature: 'hot' is not a number"],
      ['/set temperature -1', 'temperature: -1 is not within 0 and 100'],
      ['/stats maybe', "'maybe' is neither on nor off"],
      [`/load ${join(folder, 'absent')}`, 'no such file'],
    ]
    const all = await Promise.all(wrong.map(([line]) => halfling(['chat'], { input: `${line}\n` })))
    for (const [i, { code, stderr }] of all.entries()) {
      expect([wrong[i][0], code]).toEqual([wrong[i][0], 1])
      expect(stderr).toContain(wrong[i][1])
    }
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
    const command = `${process.execPath} --import tsx sdk/cli/bin.ts chat ${flags}`
    const env: NodeJS.ProcessEnv = { ...process.env, XDG_STATE_HOME: join(folder, 'state'), TERM: 'xterm-256color' }
    for (const name of ['NO_COLOR', 'FORCE_COLOR', 'HALFLING_HISTORY']) delete env[name]
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
    return { child, ended, shown, type, all: () => screen }
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
      type('\u0003')
      expect(await ended).toBe(130)
    } finally {
      child.kill('SIGKILL')
    }
    const history = join(folder, 'state/halfling/history')
    expect(readFileSync(history, 'utf8').split('\n')).toEqual(['What is 17 + 25?', '/show', '/nwe', ''])
  })

  it('Ctrl-C ends an answer and keeps what was said of it', async () => {
    const model = join(folder, 'endless')
    const tokenizer = trainTokenizer([], 256, specialTokens, tagTokens)
    const size = { hiddenSize: 64, intermediateSize: 96, numAttentionHeads: 2, numKeyValueHeads: 1 }
    const shape = { ...size, vocabSize: 288, numHiddenLayers: 1, maxPositionEmbeddings: 32_768 }
    await writeRandomQwen2(model, shape, tokenizer, 0)
    const { child, ended, shown, type } = open(`--model ${model} --max-new-tokens 30000`)
    try {
      await shown(prompted)
      type('hi\r')
      await shown(/hi\r+\n[\s\S]{40}/)
      type('\u0003')
      await shown(prompted)
      type('/show\r')
      await shown(/in 2 messages/)
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
