import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { DataError, FormatError, OptionError } from '../../sdk/errors.ts'
import { type ChatMessage, loadChatTemplate, renderChat, requireChatTemplate } from '../../sdk/text/chat-template.ts'
import { golden, has, models, readJson } from './golden.ts'

const template = (source: string, config: object = {}) => loadChatTemplate({ ...config, chat_template: source })!
afterEach(() => void vi.useRealTimers())

const user = (content: string): ChatMessage => ({ role: 'user', content })

describe('renderChat', () => {
  const table = join(golden, 'tables', 'chat_template_jinja_e2e.json')
  const cases: Case[] = has(table) ? readJson(table) : []
  interface Case {
    name: string
    template: string
    target: string
    data: { messages: ChatMessage[]; tools?: unknown[]; add_generation_prompt?: boolean } & Record<string, unknown>
  }
  it.skipIf(cases.length === 0)('the table of cases (needs shared/golden)', () => {
    for (const { name, template: source, target, data } of cases) {
      // Some templates write today's date: the day on which the table was made.
      const day =
        /\d{1,2} (?:January|February|March|April|May|June|July|August|September|October|November|December) \d{4}/
      vi.setSystemTime(new Date(`${day.exec(target)?.[0] ?? '1 January 2025'} 12:00`))
      const { messages, tools, add_generation_prompt, bos_token, eos_token, ...rest } = data
      const text = renderChat(template(source, { bos_token, eos_token }), messages, {
        tools,
        addGenerationPrompt: add_generation_prompt,
        ...rest,
      })
      expect(text, name).toBe(target)
    }
    expect(cases.length).toBeGreaterThan(0)
  })

  it.skipIf(!has(models, 'pebble-7m-instruct'))('chat_template.jinja beside the model (needs shared/models)', () => {
    const folder = join(models, 'pebble-7m-instruct')
    const jinja = readFileSync(join(folder, 'chat_template.jinja'), 'utf8')
    const pebble = loadChatTemplate(readJson(join(folder, 'tokenizer_config.json')), jinja)!
    expect(renderChat(pebble, [user('Hi')], { addGenerationPrompt: true })).toBe(
      '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n',
    )
  })

  it('takes special tokens from the configuration, or from the call', () => {
    const source = '{{ bos_token }}{{ messages[0].content }}{{ eos_token }}'
    const t = template(source, { bos_token: { content: '<s>' }, eos_token: '</s>' })
    expect(renderChat(t, [user('x')])).toBe('<s>x</s>')
    expect(renderChat(t, [user('x')], { bosToken: '', eosToken: '!' })).toBe('x!')
  })

  it('takes the template for tools when there are tools', () => {
    const named = [
      { name: 'default', template: 'plain {{ tools is none }}' },
      { name: 'tool_use', template: 'with {{ tools[0].function.name }}' },
    ]
    const t = loadChatTemplate({ chat_template: named })!
    expect(renderChat(t, [user('x')])).toBe('plain True')
    expect(renderChat(t, [user('x')], { tools: [] })).toBe('plain True')
    const tools = [{ type: 'function', function: { name: 'weather', parameters: {} } }]
    expect(renderChat(t, [user('x')], { tools })).toBe('with weather')
  })

  it('knows strftime_now and further variables', () => {
    expect(renderChat(template("{{ strftime_now('%Y') }}"), [])).toBe(String(new Date().getFullYear()))
    const t = template('{% if enable_thinking is defined and not enable_thinking %}off{% endif %}')
    expect(renderChat(t, [], { enable_thinking: false })).toBe('off')
    expect(renderChat(t, [])).toBe('')
  })

  it('says why', () => {
    const t = template("{{ raise_exception('roles must alternate') }}")
    expect(() => renderChat(t, [])).toThrow(DataError)
    expect(() => renderChat(t, [])).toThrow('roles must alternate')
    expect(() => renderChat(template('{% if %}'), [])).toThrow(FormatError)
    expect(() => loadChatTemplate({ chat_template: 7 })).toThrow(FormatError)
    expect(() => renderChat(loadChatTemplate({ chat_template: [{ name: 'rag', template: '' }] })!, [])).toThrow('rag')
    expect(loadChatTemplate({})).toBeNull()
    expect(() => requireChatTemplate(null)).toThrow(OptionError)
    expect(() => requireChatTemplate(null)).toThrow('generate')
  })
})
