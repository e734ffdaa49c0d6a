import { describe, expect, it } from 'vitest'
import { DataError } from '../../sdk/errors.ts'
import { readConversation } from '../../sdk/text/messages.ts'

const text = (text: string) => ({ type: 'text', text })

describe('readConversation', () => {
  it('joins parts of text, and leaves the rest as it is', () => {
    const call = { role: 'assistant', content: null, tool_calls: [{ function: { name: 'f', arguments: {} } }] }
    const given = [{ role: 'user', content: [text('a '), text('b')], name: 'Bo' }, call, { role: 'tool', content: '' }]
    expect(readConversation(given, 'x')).toEqual([{ role: 'user', content: 'a b', name: 'Bo' }, call, given[2]])
    expect(readConversation([{ role: 'assistant', reasoning_content: 'hm' }], 'x')).toHaveLength(1)
    expect(readConversation([{ role: 'user', content: [] }], 'x')).toEqual([{ role: 'user', content: '' }])
  })

  it.each<[unknown, string]>([
    ['hi', 'x: wanted a list of {role, content}, got "hi"'],
    [[], 'x: the list is empty'],
    [[null], 'x: message 0 is null'],
    [[{ content: 'a' }], 'x: message 0: its role is undefined'],
    [[{ role: 'user', content: 4 }], 'x: message 0: its content is 4, not a string'],
    [[{ role: 'user', content: true }], 'its content is true'],
    [[{ role: 'tool', content: { ok: 1 } }], 'its content is an object, not a string'],
    [[{ role: 'user' }], 'it has no content (undefined)'],
    [
      [
        { role: 'user', content: 'a' },
        { role: 'assistant', content: null },
      ],
      'x: message 1: it has no content (null)',
    ],
    [[{ role: 'user', content: [text('a'), { type: 'image_url' }] }], 'part 1 of its content is of type "image_url"'],
    [[{ role: 'user', content: [{ type: 'text', text: 5 }] }], 'part 0 of its content is of type "text"'],
    [[{ role: 'user', content: ['a'] }], 'part 0 of its content is "a"'],
  ])('names what is wrong: %j', (given, message) => {
    expect(() => readConversation(given, 'x')).toThrow(DataError)
    expect(() => readConversation(given, 'x')).toThrow(message)
  })
})
