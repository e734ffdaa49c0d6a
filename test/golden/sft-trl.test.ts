import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { tokenizeRows } from '../../sdk/data/tokenize.ts'
import { openModel } from '../../sdk/formats/stored-model.ts'
import { storeAt } from '../../sdk/store/store.ts'
import { loadChatTemplate } from '../../sdk/text/chat-template.ts'
import { loadTokenizer } from '../../sdk/text/tokenizer.ts'
import { cli } from '../built.ts'
import { filesOf, foldersWith, goldenRoot, missing, modelFolder, readJson, readTensors } from './golden.ts'

interface Expected {
  readonly args: Record<string, number | string | boolean>
  readonly peft: Record<string, unknown>
  readonly firstRows: { inputIds: number[]; labels: number[] }[]
  readonly steps: { step: number; loss: number; gradNorm: number; learningRate: number; num_tokens: number }[]
}

describe.skipIf(missing !== null)(
  `golden TRL SFTTrainer through \`halfling sft\`${missing ? ` (${missing})` : ''}`,
  () => {
    if (foldersWith('sft_trl').length === 0) it.skip(`golden sft_trl: none in ${goldenRoot}`)
    for (const parent of foldersWith('sft_trl')) {
      const folder = join(parent, 'sft_trl')
      if (filesOf(folder, /^expected\.json$/).length === 0) continue
      const expected = readJson<Expected>(join(folder, 'expected.json'))
      const data = join(folder, 'train.jsonl')

      it(`${folder}: tokens and labels of the rows`, async () => {
        const source = await openModel(await storeAt(modelFolder(parent)))
        const tokenizer = loadTokenizer(source.tokenizerJson, source.tokenizerConfig)
        const template = loadChatTemplate(source.tokenizerConfig, source.chatTemplate ?? undefined)
        const examples = []
        for await (const e of tokenizeRows(data, tokenizer, template, { maxLength: Number(expected.args.max_length) }))
          examples.push({ inputIds: e.inputIds, labels: e.labels })
        expect(examples.slice(0, expected.firstRows.length)).toEqual(expected.firstRows)
      })

      it(`${folder}: loss and gradient norm of every step within 1e-4`, async () => {
        // TRL's own arguments as the configuration, its LoRA start as the adapter.
        const adapter = mkdtempSync(join(tmpdir(), 'halfling-init-'))
        copyFileSync(join(folder, 'init.safetensors'), join(adapter, 'adapter_model.safetensors'))
        writeFileSync(join(adapter, 'adapter_config.json'), JSON.stringify({ peft_type: 'LORA', ...expected.peft }))
        const outputDir = mkdtempSync(join(tmpdir(), 'halfling-'))
        const config = join(adapter, 'config.yaml')
        const more = { train_sampling_strategy: 'sequential', save_strategy: 'no', threads: 2 }
        writeFileSync(
          config,
          stringify({ ...expected.args, ...more, model: modelFolder(parent), adapter, data, output_dir: outputDir }),
        )
        const printed = execFileSync(process.execPath, [...cli, 'sft', '--config', config, '--json'], {
          encoding: 'utf8',
          stdio: ['ignore', 'pipe', 'ignore'],
        })
        const lines = readFileSync(join(outputDir, 'metrics.jsonl'), 'utf8').trim().split('\n')
        expect(lines.length).toBe(expected.steps.length)
        expect(JSON.parse(printed)).toEqual({ ...JSON.parse(lines.at(-1)!), outputDir })
        for (const [i, line] of lines.entries()) {
          const [log, want] = [JSON.parse(line), expected.steps[i]]
          expect(Math.abs(log.loss - want.loss) / want.loss, `loss of step ${want.step}`).toBeLessThan(1e-4)
          expect(Math.abs(log.gradNorm - want.gradNorm) / want.gradNorm, `norm of step ${want.step}`).toBeLessThan(1e-4)
          expect(log.learningRate).toBeCloseTo(want.learningRate, 9)
          expect(log.tokens).toBe(want.num_tokens)
        }
        const final = await readTensors(join(folder, 'final.safetensors'))
        const saved = await readTensors(join(outputDir, 'adapter_model.safetensors'))
        for (const [name, want] of final) {
          const errors = saved.get(name)!.data.map((x, i) => x - want.data[i])
          expect(Math.hypot(...errors) / Math.hypot(...want.data), name).toBeLessThan(1e-3)
        }
      })
    }
  },
)
