import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { grade } from '../sdk/answers/grade.ts'
import { readRows } from '../sdk/data/rows.ts'
import { rowTokenizer } from '../sdk/data/tokenize.ts'
import { loadAdapter, loadModel } from '../sdk/load.ts'
import { accuracyReward } from '../sdk/rewards/accuracy.ts'
import { loadChatTemplate } from '../sdk/text/chat-template.ts'
import { GRPOTrainer } from '../sdk/train/grpo.ts'
import { goldenRoot, readJson } from './golden/golden.ts'

// Faults that users reported, as small inputs: those of the grader and of training.

const folder = join(goldenRoot, '..', 'cases')
const isThere = existsSync(folder)
const grading = isThere ? readdirSync(folder).filter((name) => name.startsWith('grade-')) : []
const device = { device: 'wasm', threads: 1 } as const

describe.skipIf(!isThere)(`shared cases (needs ${folder})`, () => {
  it.each(grading)('%s', async (name) => {
    for (const { gold, text, equal } of readJson<{ gold: string; text: string; equal: boolean }[]>(
      join(folder, name, 'cases.json'),
    ))
      expect((await grade(gold, text)).equal, JSON.stringify([gold, text])).toBe(equal)
  })

  /** What is scored of each row, and what is warned of. */
  async function scored(name: string, jinja?: string): Promise<{ texts: string[]; warnings: string[] }> {
    const lm = await loadModel('models/nano', device)
    const template = jinja && loadChatTemplate({}, readFileSync(join(folder, name, jinja), 'utf8'))
    const warnings: string[] = []
    const warn = (message: string) => warnings.push(message)
    const tokenize = rowTokenizer(lm.tokenizer, template || lm.chatTemplate, { warn })
    const texts: string[] = []
    for await (const row of readRows(join(folder, name, 'rows.jsonl')))
      texts.push(lm.tokenizer.decode(tokenize(row)!.labels.filter((id) => id >= 0)))
    await lm.close()
    return { texts, warnings }
  }

  it('sft-message-weight', async () => {
    const { texts } = await scored('sft-message-weight')
    expect(texts).toEqual(['good<|im_end|>\n', 'four<|im_end|>\n'])
  })

  it('sft-reasoning-dropped', async () => {
    const { warnings } = await scored('sft-reasoning-dropped', 'chat_template.jinja')
    expect(warnings.join()).toContain('throws away what the assistant says')
  })

  it('sft-template-adds-prompt', async () => {
    const { texts } = await scored('sft-template-adds-prompt', 'chat_template.jinja')
    expect(texts).toEqual(['6<|im_end|>\n'])
    const { warnings } = await scored('sft-template-adds-prompt', 'template-ignores-prompt.jinja')
    expect(warnings.join()).toContain("does not open the assistant's turn")
  })

  it('grpo-no-reward', async () => {
    const model = await loadModel('models/nano', device)
    const args = { outputDir: null, maxSteps: 2, maxCompletionLength: 8 }
    const trainDataset = join(folder, 'grpo-no-reward', 'rows.jsonl')
    const warnings: string[] = []
    const onWarning = (message: string) => warnings.push(message)
    const trainer = new GRPOTrainer({ model, trainDataset, rewardFuncs: accuracyReward, args, onWarning })
    const steps: unknown[] = []
    const run = async () => {
      for await (const log of trainer.train()) steps.push(log)
    }
    await expect(run()).rejects.toThrow(/no completion has any reward \(accuracyReward: null/)
    if (steps.length > 0) expect(warnings[0]).toMatch(/^step 1: no completion has any reward/)
    await model.close()
  })

  it('peft-saved-embeddings', async () => {
    const at = join(folder, 'peft-saved-embeddings')
    const lm = await loadModel(at, device)
    await loadAdapter(lm, join(at, 'adapter'))
    expect(lm.model.activeAdapters).toEqual(['adapter'])
    const own = lm.model.adapters.get('adapter')!.tables
    expect(own.get('lm_head.weight')).toBe(own.get('model.embed_tokens.weight'))
    expect(own.get('lm_head.weight')).not.toEqual(await lm.model.readFloats('model.embed_tokens.weight'))
    await lm.close()
  })
})
