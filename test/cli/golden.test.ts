import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { halflingJson, noPebble, pebble, pebbleData, pebbleGolden } from './halfling.ts'

interface Greedy {
  readonly prompt: string
  readonly outputIds: readonly number[]
  readonly text: string
  readonly smallestMargin: number
}

const read = (name: string) => JSON.parse(readFileSync(join(pebbleGolden, name), 'utf8'))

describe.skipIf(noPebble)(`pebble-7m-instruct as PyTorch has it${noPebble ? `: ${noPebble}` : ''}`, () => {
  it('generate and chat give the greedy ids', async () => {
    const [first]: Greedy[] = read('greedy.json')
    expect(first.smallestMargin).toBeGreaterThan(1e-3)
    const flags = ['--model', pebble, '--temperature', '0', '--max-new-tokens', '96']
    const { value } = await halflingJson(['generate', ...flags, '--prompt', first.prompt])
    expect(value.tokenIds).toEqual(first.outputIds)
    expect(value.finishReason).toBe('stop')
    const question = /<\|im_start\|>user\n(.*?)<\|im_end\|>/s.exec(first.prompt)![1]
    const chat = await halflingJson(['chat', ...flags, '--prompt', question])
    expect(chat.value.tokenIds).toEqual(first.outputIds)
    expect(chat.value.text).toBe(value.text)
  })

  it('score gives the log-probabilities', async () => {
    const [{ prompt, text }]: Greedy[] = read('greedy.json')
    const [{ ids, logProbs }] = read('score.json')
    const whole = text.endsWith('<|im_end|>') ? prompt + text : `${prompt}${text}<|im_end|>`
    const { value } = await halflingJson(['score', '--model', pebble, '--text', whole])
    expect(value.tokens).toBe(ids.length - 1)
    const worst = Math.max(...value.tokenLogProbs.map((p: number, i: number) => Math.abs(p - logProbs[i])))
    expect(worst).toBeLessThan(1e-4)
  })

  it('eval finds that it knows what it was trained on', async () => {
    const data = join(pebbleData, 'known_test.jsonl')
    const { value } = await halflingJson([
      'eval',
      '--model',
      pebble,
      '--data',
      data,
      '--limit',
      '24',
      '--max-new-tokens',
      '96',
    ])
    expect(value.n).toBe(24)
    expect(value.correct).toBeGreaterThanOrEqual(23)
    expect(value.accuracy).toBe(value.correct / 24)
    expect(value.standardError).toBeCloseTo(Math.sqrt((value.accuracy * (1 - value.accuracy)) / 24), 12)
  })
})
