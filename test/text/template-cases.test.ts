import { describe, expect, it } from 'vitest'
import { DataError, FormatError } from '../../sdk/errors.ts'
import { type ChatMessage, loadChatTemplate, renderChat } from '../../sdk/text/chat-template.ts'
import { readJson } from './golden.ts'

type Variables = { messages: ChatMessage[]; tools: unknown[] | null; add_generation_prompt: boolean }

/** Made by make_template_cases.py, which says how. null: jinja2 fails. */
const table: {
  made: string
  variables: Variables[]
  families: { name: string; template: string; expected: (string | null)[] }[]
  cases: [template: string, variables: number, expected: string | null][]
} = readJson(new URL('template-cases.json', import.meta.url).pathname)

/** The text, or why there is none. */
function rendered(template: string, { messages, tools, add_generation_prompt, ...more }: Variables): string | Error {
  try {
    const loaded = loadChatTemplate({ chat_template: template, bos_token: '<s>', eos_token: '</s>' })!
    return renderChat(loaded, messages, { addGenerationPrompt: add_generation_prompt, tools, ...more })
  } catch (error) {
    if (error instanceof DataError || error instanceof FormatError) return error
    throw error
  }
}

describe(`templates by Python's ${table.made}`, () => {
  it.each(table.families)('$name', ({ template, expected }) => {
    for (const [i, want] of expected.entries()) {
      const got = rendered(template, table.variables[i])
      expect(typeof got === 'string' ? got : null, `variables ${i}: ${got}`).toBe(want)
    }
  })

  it(`${table.cases.length} random ones`, () => {
    const refused: string[] = []
    for (const [template, i, want] of table.cases) {
      const got = rendered(template, table.variables[i])
      if (typeof got === 'string') expect(got, template).toBe(want)
      else if (want !== null) refused.push(got.message)
    }
    expect(refused.length).toBeLessThan(table.cases.length / 20)
    for (const message of refused) expect(message).toMatch(/filter '|test '|tag '|is not supported/)
  })
})
