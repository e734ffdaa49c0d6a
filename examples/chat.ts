// A chat in twenty lines: what you type goes in, the answer streams out, the conversation is kept.
//
//     npx tsx examples/chat.ts [model]      a folder, a .gguf file or a hub id; without one, the built-in nano

import { createInterface } from 'node:readline/promises'
import { loadModel } from '../sdk/index.ts'

const model = await loadModel(process.argv[2])
const messages: { role: string; content: string }[] = []
const input = createInterface({ input: process.stdin })
process.stdout.write('> ')
for await (const line of input) {
  messages.push({ role: 'user', content: line })
  let answer = ''
  for await (const piece of model.chat(messages, { contextOverflow: 'dropOldest' })) {
    process.stdout.write(piece.text)
    answer += piece.text
  }
  messages.push({ role: 'assistant', content: answer })
  process.stdout.write('\n> ')
}
await model.close()
