import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { scoredTokens } from '../../sdk/data/pack.ts'
import type { Row } from '../../sdk/data/rows.ts'
import { type Example, rowTokenizer, type TokenizeOptions, tokenizeRows } from '../../sdk/data/tokenize.ts'
import { DataError, OptionError } from '../../sdk/errors.ts'
import { type ChatTemplate, loadChatTemplate } from '../../sdk/text/chat-template.ts'
import { golden, has, models, qwenFolder, readJson, tokenizerOf } from '../text/golden.ts'

const qwen = tokenizerOf(qwenFolder)
const template = (source: string): ChatTemplate => loadChatTemplate({ chat_template: source })!
const chatml = template(
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
)
/** As Qwen3: thinking stays in the turn after the last user message only. */
const forgetful = template(
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
)

const row = (values: Row['values'], index = 4): Row => ({ values, index, place: `data.jsonl:${index + 1}` })
const user = (content: string) => ({ role: 'user', content })
const assistant = (content: string) => ({ role: 'assistant', content })

/** The scored stretches as text. */
function scored({ inputIds, labels }: Example): string[] {
  const stretches: number[][] = []
  for (const [t, label] of labels.entries()) {
    if (label === -100) continue
    expect(label).toBe(inputIds[t])
    if (t === 0 || labels[t - 1] === -100) stretches.push([])
    stretches.at(-1)!.push(label)
  }
  return stretches.map((ids) => qwen.decode(ids))
}

function tokenize(values: Row['values'], chat: ChatTemplate | null, options: TokenizeOptions = {}) {
  const warnings: string[] = []
  const run = rowTokenizer(qwen, chat, { warn: (message) => warnings.push(message), ...options })
  const example = run(row(values))!
  return { example, warnings, again: () => run(row(values)), text: example && qwen.decode(example.inputIds) }
}

describe("TRL's rows", () => {
  const folders = has(golden) ? readdirSync(golden).filter((f) => has(golden, f, 'sft_trl', 'expected.json')) : []
  if (folders.length === 0) it.skip(`golden rows: none in ${golden}`)
  it.each(folders)('%s/sft_trl: tokens and labels (needs shared/golden)', async (folder) => {
    const at = join(golden, folder, 'sft_trl')
    const model = has(models, folder) ? join(models, folder) : join(golden, folder)
    const jinja = join(model, 'chat_template.jinja')
    const chat = loadChatTemplate(
      readJson(join(model, 'tokenizer_config.json')),
      has(jinja) ? readFileSync(jinja, 'utf8') : undefined,
    )
    const { args, firstRows } = readJson(join(at, 'expected.json'))
    const warnings: string[] = []
    const options = { maxLength: args.max_length, warn: (message: string) => warnings.push(message) }
    const examples: Example[] = []
    for await (const e of tokenizeRows(join(at, 'train.jsonl'), tokenizerOf(model), chat, options)) examples.push(e)
    expect(firstRows.length).toBeGreaterThan(0)
    for (const [i, { inputIds, labels }] of firstRows.entries())
      expect(examples[i]).toEqual({ inputIds, labels, row: i })
    expect(examples.length).toBe(readFileSync(join(at, 'train.jsonl'), 'utf8').trim().split('\n').length)
    if (chat) expect(warnings).toEqual([])
  })
})

describe('plain rows', () => {
  it('scores the completion and its end', () => {
    const { example, text } = tokenize({ prompt: '2 + 2 =', completion: ' 4' }, null)
    expect(text).toBe('2 + 2 = 4<|im_end|>')
    expect(scored(example)).toEqual([' 4<|im_end|>'])
    expect(example.row).toBe(4)
    const ended = tokenize({ prompt: '2 + 2 =', completion: ' 4<|im_end|>' }, null)
    expect(ended.example).toEqual(example)
    const all = tokenize({ prompt: '2 + 2 =', completion: ' 4' }, null, { completionOnlyLoss: false })
    expect(scored(all.example)).toEqual(['2 + 2 = 4<|im_end|>'])
  })

  it('scores all of a text', () => {
    expect(scored(tokenize({ text: 'Once upon' }, null).example)).toEqual(['Once upon<|im_end|>'])
  })

  it('asks questions', () => {
    const plain = tokenize({ question: 'Why?', answer: '7' }, null)
    expect(plain.text).toBe('Question: Why?\nAnswer: 7<|im_end|>')
    expect(scored(plain.example)).toEqual([' 7<|im_end|>'])
    const chat = tokenize({ q: 'Why?', solution: '7', answer: 'x' }, chatml, {
      columns: { question: 'q', answer: 'solution' },
    })
    expect(chat.text).toBe('<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n7<|im_end|>\n')
    expect(scored(chat.example)).toEqual(['7<|im_end|>\n'])
  })

  it('begins where the tokens part when they merge across the boundary, and says so once', () => {
    const { example, warnings, again } = tokenize({ prompt: 'un', completion: 'able' }, null)
    again()
    expect(scored(example)).toEqual(['unable<|im_end|>'])
    expect(warnings.length).toBe(1)
    expect(warnings[0]).toContain('data.jsonl:5')
    expect(warnings[0]).toContain('"un"')
  })
})

describe('conversations', () => {
  const messages = [user('a'), assistant('<think>x</think>one'), user('b'), assistant('<think>y</think>two')]

  it('scores what the assistant says, ends of turns included', () => {
    const { example, warnings } = tokenize({ messages }, chatml)
    expect(scored(example)).toEqual(['<think>x</think>one<|im_end|>\n', '<think>y</think>two<|im_end|>\n'])
    expect(warnings).toEqual([])
    const all = tokenize({ messages }, chatml, { assistantOnlyLoss: false })
    expect(all.example.inputIds).toEqual(example.inputIds)
    expect(scored(all.example)).toEqual([qwen.decode(example.inputIds)])
  })

  it('a last turn alone is what prompt + completion is', () => {
    const chat = tokenize({ messages: messages.slice(0, 2) }, chatml)
    const split = tokenize({ prompt: messages.slice(0, 1), completion: messages.slice(1, 2) }, chatml)
    expect(split.example).toEqual(chat.example)
  })

  it('leaves out what follows the last assistant turn', () => {
    const { example } = tokenize({ messages: [...messages, user('c')] }, chatml)
    expect(example).toEqual(tokenize({ messages }, chatml).example)
  })

  it('trains the last turn only where the template rewrites earlier ones, and says so once', () => {
    const { example, warnings, again, text } = tokenize({ messages }, forgetful)
    again()
    expect(text).not.toContain('<think>x')
    expect(scored(example)).toEqual(['<think>y</think>two<|im_end|>\n'])
    expect(warnings.length).toBe(1)
    expect(warnings[0]).toContain('only the last assistant turn')
    expect(tokenize({ messages: messages.slice(0, 2) }, forgetful).warnings).toEqual([])
  })

  it('takes a message of weight 0 as context', () => {
    const rated = [user('a'), { ...assistant('no'), weight: 0 }, user('b'), { ...assistant('yes'), weight: 1 }]
    expect(scored(tokenize({ messages: rated }, chatml).example)).toEqual(['yes<|im_end|>\n'])
    for (const flag of ['loss', 'train', 'training']) {
      const flagged = [user('a'), assistant('yes'), user('b'), { ...assistant('no'), [flag]: false }]
      const { example, text } = tokenize({ messages: flagged }, chatml)
      expect(scored(example)).toEqual(['yes<|im_end|>\n'])
      expect(text).not.toContain('no')
    }
    const halved = [user('a'), { ...assistant('no'), weight: 0.5 }]
    expect(() => tokenize({ messages: halved }, chatml)).toThrow('the weight 0.5')
    expect(() => tokenize({ messages: rated.slice(0, 2) }, chatml)).toThrow('nothing in it is scored')
    expect(() => tokenize({ messages: rated }, chatml, { assistantOnlyLoss: false })).toThrow('needs assistantOnlyLoss')
    expect(() => tokenize({ prompt: rated.slice(0, 1), completion: rated.slice(1, 2) }, chatml)).toThrow(
      'it belongs into the prompt',
    )
  })

  it('says when the template throws away what the assistant says', () => {
    const reasoning = template(
      "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + (m.content or '').split('</think>')[-1] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}",
    )
    const said = (turn: object) =>
      tokenize({ messages: [user('a'), { role: 'assistant', ...turn }] }, reasoning).warnings
    const lost = expect.stringMatching(/data.jsonl:5: the chat template throws away what the assistant says.*why/)
    expect(said({ content: '<think>\nwhy\n</think>\n\nb' })).toContainEqual(lost)
    expect(said({ content: 'b', reasoning_content: 'why' })).toContainEqual(lost)
    expect(said({ content: null, tool_calls: [{ function: { name: 'why', arguments: {} } }] })).toContainEqual(lost)
    expect(said({ content: 'b  b' })).not.toContainEqual(lost)
    const split = { prompt: [user('a')], completion: [assistant('<think>why</think>b')] }
    expect(tokenize(split, reasoning).warnings).toContainEqual(lost)
  })

  it('does not score the opening of a turn that nobody asked for', () => {
    const opening = template(
      "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n' }}",
    )
    const plain = [user('a'), assistant('one'), user('b'), assistant('two')]
    const { example, warnings } = tokenize({ messages: plain }, opening)
    expect(scored(example)).toEqual(['one<|im_end|>\n', 'two<|im_end|>\n'])
    expect(warnings).toEqual([])
    expect(example).toEqual(tokenize({ messages: plain }, chatml).example)
    const split = { prompt: plain.slice(0, 1), completion: plain.slice(1, 2) }
    expect(tokenize(split, opening).example).toEqual(tokenize(split, chatml).example)
    const all = { assistantOnlyLoss: false }
    expect(tokenize({ messages: plain }, opening, all).example).toEqual(
      tokenize({ messages: plain }, chatml, all).example,
    )
  })

  it('says when the template never opens the turn', () => {
    const silent = template(
      "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}",
    )
    const { example, warnings } = tokenize({ messages: [user('a'), assistant('one')] }, silent)
    expect(scored(example)).toEqual(['<|im_start|>assistant\none<|im_end|>\n'])
    expect(warnings).toEqual([expect.stringContaining('does not open the assistant')])
    const mistral = template(
      "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}",
    )
    expect(tokenize({ messages: [user('a'), assistant('one')] }, mistral).warnings).toEqual([])
  })

  const table = join(golden, 'tables', 'chat_template_jinja_e2e.json')
  it.skipIf(!has(table))(
    "knows Qwen2.5's template as one that keeps, Qwen3's as one that drops (needs shared/golden)",
    () => {
      const cases = readJson(table) as { name: string; template: string }[]
      const thinking = [
        user('a'),
        assistant('<think>\nx\n</think>\n\none'),
        user('b'),
        assistant('<think>\ny\n</think>\n\ntwo'),
      ]
      const turns = ['<think>\nx\n</think>\n\none<|im_end|>\n', '<think>\ny\n</think>\n\ntwo<|im_end|>\n']
      const run = (name: string) =>
        tokenize({ messages: thinking }, template(cases.find((c) => c.name.startsWith(name))!.template))
      expect(scored(run('Qwen/Qwen2.5').example)).toEqual(turns)
      expect(run('Qwen/Qwen2.5').warnings).toEqual([])
      expect(scored(run('Qwen/Qwen3').example)).toEqual(turns.slice(1))
      expect(run('Qwen/Qwen3').warnings.length).toBe(1)
    },
  )

  it('scores turns between tool results', () => {
    const calls = [user('a'), assistant('call'), { role: 'tool', content: 'r' }, assistant('done')]
    expect(scored(tokenize({ messages: calls }, chatml).example)).toEqual(['call<|im_end|>\n', 'done<|im_end|>\n'])
  })

  it('hands tools to the template', () => {
    const withTools = template("{{ tools[0].name }}{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}")
    const { text } = tokenize({ messages: [user('a'), assistant('b')], tools: [{ name: 'T' }] }, withTools)
    expect(text).toBe('Ta<|im_end|>b<|im_end|>')
  })
})

describe('rows that cannot be used', () => {
  it('are named', () => {
    const fails = (values: Row['values'], chat: ChatTemplate | null, message: string | RegExp, options = {}) => {
      const run = () => tokenize(values, chat, options)
      expect(run).toThrow(DataError)
      expect(run).toThrow(message)
      expect(run).toThrow('data.jsonl:5')
    }
    fails({ messages: [user('a')] }, chatml, 'no assistant message')
    fails({ text: '' }, null, 'its text is empty')
    fails({ prompt: 'a', completion: ' b' }, null, /3 tokens, maxLength is 2/, {
      maxLength: 2,
      truncationMode: 'error',
    })
    fails({ foo: 1 }, null, 'its columns are foo')
    fails({ messages: [user('a')] }, template("{{ raise_exception('no') }}"), 'refuses', { assistantOnlyLoss: false })
    expect(() => tokenize({ messages: [user('a'), assistant('b')] }, null)).toThrow(OptionError)
    expect(() => tokenize({ text: 'a' }, null, { maxLength: 0 })).toThrow(OptionError)
  })

  it('are cut, or left out, or an error when too long', () => {
    const values = { prompt: 'a b c', completion: ' d e f' }
    const whole = tokenize(values, null).example
    expect([whole.inputIds.length, scoredTokens(whole)]).toEqual([7, 4])
    const cut = tokenize(values, null, { maxLength: 5 })
    expect(cut.example).toEqual({ inputIds: whole.inputIds.slice(0, 5), labels: whole.labels.slice(0, 5), row: 4 })
    expect(cut.warnings.length).toBe(1)
    expect(tokenize(values, null, { maxLength: 7 }).warnings).toEqual([])
    expect(tokenize(values, null, { maxLength: null }).example).toEqual(whole)
    expect(() => tokenize(values, null, { maxLength: 3 })).toThrow(
      /data.jsonl:5: nothing is scored in its first 3 of 7/,
    )
    expect(() => tokenize(values, null, { maxLength: 6, truncationMode: 'error' })).toThrow(/7 tokens, maxLength is 6/)
    const skipped = tokenize(values, null, { maxLength: 6, truncationMode: 'skip' })
    expect(skipped.example).toBeNull()
    expect(skipped.warnings.length).toBe(1)
  })
})
