import { mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { LanguageModel } from '../../sdk/generate/language-model.ts'
import { rollout } from '../../sdk/generate/rollout.ts'
import { SFTTrainer } from '../../sdk/train/sft.ts'
import { openWebGpu } from '../../targets/webgpu/node.ts'
import type { RecoveringTarget } from '../../targets/webgpu/recovering.ts'
import { useSwiftShader } from '../swiftshader.ts'
import { randomModel, rows } from '../train/model.ts'

const skip = useSwiftShader()

describe.skipIf(skip)(`a device that is lost${skip ? ` (${skip})` : ''}`, () => {
  const open = async () => {
    const target = await openWebGpu({ defaultLimits: true })
    return { target, lm: await randomModel(target) }
  }
  const answer = async (lm: LanguageModel, onToken: (n: number) => void) => {
    const pieces = []
    const options = { maxNewTokens: 60, temperature: 0.9, seed: 3 }
    for await (const piece of lm.generate('What was that?', options)) {
      pieces.push(piece)
      onToken(pieces.length)
    }
    return pieces.map(({ text, tokenIds, logProbs }) => ({ text, tokenIds, logProbs }))
  }

  it('while generating: the text, its tokens and their probabilities are those of an undisturbed run', async () => {
    const calm = await open()
    const wanted = await answer(calm.lm, () => {})
    await calm.lm.close()
    const { target, lm } = await open()
    const got = await answer(lm, (n) => {
      if (n === 3 || n === 20 || n === 36) target.loseDevice()
    })
    expect(got).toEqual(wanted)
    expect(target.losses).toBe(3)
    await lm.close()
  })

  const train = async (lose: (target: RecoveringTarget, step: number) => void) => {
    const { target, lm } = await open()
    const outputDir = mkdtempSync(join(tmpdir(), 'halfling-'))
    const trainer = new SFTTrainer({
      model: lm,
      trainDataset: rows,
      peft: { r: 4, loraDropout: 0.1 },
      args: {
        outputDir,
        maxSteps: 8,
        learningRate: 2e-3,
        perDeviceTrainBatchSize: 4,
        gradientAccumulationSteps: 2,
        saveStrategy: 'no',
      },
    })
    const losses: number[] = []
    for await (const log of trainer.train()) {
      if ('loss' in log) losses.push(log.loss)
      lose(target, log.step)
    }
    await lm.close()
    return { losses, adapter: readFileSync(join(outputDir, 'adapter_model.safetensors')), lost: target.losses }
  }

  it('while training, between steps and in the middle of them: the adapter is that of an undisturbed run', async () => {
    const calm = await train(() => {})
    const between = await train((target, step) => {
      if (step % 3 === 0) target.loseDevice()
    })
    const middle = await train((target, step) => {
      if (step % 2 === 0) setTimeout(() => target.loseDevice(), 15)
    })
    expect(calm.lost).toBe(0)
    expect(between.lost).toBe(2)
    expect(middle.lost).toBeGreaterThan(1)
    for (const { losses, adapter } of [between, middle]) {
      expect(losses).toEqual(calm.losses)
      expect(adapter.equals(calm.adapter)).toBe(true)
    }
  })

  it('while drawing rollouts: the same completions', async () => {
    const calm = await open()
    const prompts = ['abc', 'another one'].map((text) => calm.lm.tokenizer.encode(text))
    const options = { numGenerations: 4, maxCompletionLength: 24, seed: 1, slots: 3 }
    const wanted = await rollout(calm.lm, prompts, options)
    await calm.lm.close()
    const { target, lm } = await open()
    const got = await rollout(lm, prompts, {
      ...options,
      onProgress: (done) => {
        if (done % 3 === 1) target.loseDevice()
      },
    })
    expect(got).toEqual(wanted)
    expect(target.losses).toBeGreaterThan(1)
    await lm.close()
  })
})
