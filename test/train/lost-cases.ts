import { mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { DeviceError, DeviceLostError } from '../../sdk/errors.ts'
import type { LanguageModel } from '../../sdk/generate/language-model.ts'
import { rollout } from '../../sdk/generate/rollout.ts'
import { scoreExamples } from '../../sdk/generate/score.ts'
import type { Target } from '../../sdk/target.ts'
import { GRPOTrainer } from '../../sdk/train/grpo.ts'
import { SFTTrainer } from '../../sdk/train/sft.ts'
import { randomModel, rows } from './model.ts'

// What the SDK does when a device goes away: the same cases on every kind of device.

/** A target, and what takes its device away. */
export interface Losable {
  readonly target: Target
  lose(): void
}

type Opened = Pick<Losable, 'lose'> & { readonly lm: LanguageModel; lost(): number; close(): Promise<void> }

export function lostCases(openDevice: () => Promise<Losable>): void {
  /** What nothing disturbs has one device, whose kernels are compiled once. */
  let quiet: Promise<Losable> | undefined
  afterAll(async () => (await quiet)?.target.close())
  async function openCalm() {
    quiet ??= openDevice()
    const { target } = await quiet
    const lm = await randomModel(target, 'f32', 256, () => Promise.reject(new DeviceError('it was not to be lost')))
    return { lm, lose: () => {}, lost: () => 0, close: async () => lm.model.free() }
  }

  /** A model whose devices are lost at will; `lost` counts them. */
  async function open({ opens = (_: number) => {} } = {}) {
    const devices: Losable[] = []
    const gone = new Set<Losable>()
    const next = async () => {
      opens(devices.length)
      devices.push(await openDevice())
      return devices.at(-1)!.target
    }
    const lose = (device = devices.at(-1)!) => {
      gone.add(device)
      device.lose()
    }
    const lm = await randomModel(await next(), 'f32', 256, next)
    return { lm, lose, devices, lost: () => gone.size, close: () => lm.close() }
  }

  describe('generation', () => {
    const answer = async (opened: Opened, losesAt: readonly number[] = []) => {
      let tokens = 0
      const pieces = []
      for await (const piece of opened.lm.generate('What was that?', { maxNewTokens: 60, temperature: 0.9, seed: 3 })) {
        pieces.push(piece)
        const before = tokens
        tokens += piece.tokenIds.length
        if (losesAt.some((n) => before < n && tokens >= n)) opened.lose()
      }
      return pieces
    }

    it('goes on: the text, its tokens and their probabilities are those of an undisturbed run', async () => {
      const [calm, disturbed] = [await openCalm(), await open()]
      const wanted = await answer(calm)
      expect(await answer(disturbed, [3, 36])).toEqual(wanted)
      expect(disturbed.lost()).toBe(2)
      // The next answer finds no cache of the old device.
      expect(await answer(disturbed)).toEqual(await answer(calm))
      await Promise.all([calm.close(), disturbed.close()])
    })

    it('rollouts, penalties among them, and scores are the same', async () => {
      const [calm, disturbed] = [await openCalm(), await open()]
      const prompts = ['abc', 'another one'].map((text) => calm.lm.tokenizer.encode(text))
      const options = { numGenerations: 4, maxCompletionLength: 40, seed: 1, slots: 3, repetitionPenalty: 1.2 }
      const wanted = await rollout(calm.lm, prompts, options)
      const got = await rollout(disturbed.lm, prompts, {
        ...options,
        onProgress: (done) => {
          if (done % 4 === 1) disturbed.lose()
        },
      })
      expect(got).toEqual(wanted)
      expect(disturbed.lost()).toBeGreaterThan(1)
      const examples = wanted.map(({ promptIds, tokenIds }, row) => {
        const inputIds = [...promptIds, ...tokenIds]
        return { inputIds, labels: inputIds, row }
      })
      const scores = await scoreExamples(calm.lm.model, examples)
      disturbed.lose()
      expect(await scoreExamples(disturbed.lm.model, examples)).toEqual(scores)
      await Promise.all([calm.close(), disturbed.close()])
    })

    it('a device that is lost while its successor is filled is lost twice; one that cannot be opened ends it', async () => {
      const twice = await open({
        opens: (n) => {
          // The second one goes away before its weights are there.
          if (n === 1) setTimeout(() => twice.lose(twice.devices[1] ?? twice.devices[0]))
        },
      })
      const wanted = await answer(twice)
      expect(await answer(twice, [5])).toEqual(wanted)
      await twice.lm.close()

      let isGone = false
      const gone = await open({
        opens: () => {
          if (isGone) throw new DeviceError('no adapter')
        },
      })
      isGone = true
      const error = await answer(gone, [5]).catch((e) => e)
      expect(error).toBeInstanceOf(DeviceLostError)
      expect(error.message).toMatch(/the device was lost .*going on with another device failed: no adapter/)
    })

    it('gives up on a device that is lost again and again', async () => {
      const opened = await open()
      opened.lose()
      let left = 20
      opened.lm.model.again = {
        ...opened.lm.model.again!,
        onDeviceLost: () => {
          if (left-- > 0) opened.lose()
        },
      }
      await expect(answer(opened)).rejects.toThrow(DeviceLostError)
      expect(left).toBeGreaterThan(10)
    })
  })

  describe('training', () => {
    const args = { maxSteps: 6, learningRate: 2e-3, perDeviceTrainBatchSize: 4, gradientAccumulationSteps: 2 }
    const sft = async (
      peft: { r: number; loraDropout: number } | null,
      lose?: (at: Opened, step: number) => void,
      more: { saveStrategy?: 'no' | 'steps'; saveSteps?: number } = { saveStrategy: 'no' },
    ) => {
      const opened = lose ? await open() : await openCalm()
      const outputDir = mkdtempSync(join(tmpdir(), 'halfling-'))
      const trainDataset = rows
      const trainer = new SFTTrainer({ model: opened.lm, trainDataset, peft, args: { ...args, ...more, outputDir } })
      const lines: unknown[] = []
      for await (const { tokensPerSecond: _, ...line } of trainer.train() as AsyncIterable<Record<string, number>>) {
        lines.push(line)
        lose?.(opened, line.step)
      }
      const name = peft ? 'adapter_model.safetensors' : 'model.safetensors'
      await opened.close()
      const written = readFileSync(join(outputDir, 'metrics.jsonl'), 'utf8').trim().split('\n').length
      return { lines, written, bytes: readFileSync(join(outputDir, name)), lost: opened.lost() }
    }
    const lora = { r: 4, loraDropout: 0.1 }

    it('LoRA: between steps and in the midst of them, the log and the adapter are those of an undisturbed run', async () => {
      const calm = await sft(lora)
      const between = await sft(lora, (opened, step) => step % 3 === 2 && opened.lose())
      const middle = await sft(lora, (opened, step) => step < 5 && step % 2 === 0 && setTimeout(() => opened.lose(), 3))
      expect([calm.lost, between.lost]).toEqual([0, 2])
      expect(middle.lost).toBeGreaterThan(1)
      for (const run of [between, middle]) {
        expect(run.lines).toEqual(calm.lines)
        expect(run.written).toBe(calm.written)
        expect(run.bytes.equals(calm.bytes)).toBe(true)
      }
    })

    it('all parameters: from the last checkpoint, or the error says that there is none', async () => {
      const calm = await sft(null)
      const saved = await sft(null, (opened, step) => step === 5 && opened.lose(), {
        saveStrategy: 'steps',
        saveSteps: 2,
      })
      expect(saved.lines).toEqual(calm.lines)
      expect(saved.bytes.equals(calm.bytes)).toBe(true)
      const none = sft(null, (opened, step) => step === 5 && opened.lose())
      await expect(none).rejects.toThrow(DeviceLostError)
      await expect(none).rejects.toThrow(
        /lost with it, and there is no checkpoint to go on from \(save some: outputDir/,
      )
    })

    it('GRPO: rollouts and updates; rewards are told of each batch once', async () => {
      const train = async (loses: readonly number[]) => {
        const opened = loses.length > 0 ? await open() : await openCalm()
        let told = 0
        const trainer = new GRPOTrainer({
          model: opened.lm,
          trainDataset: ['ab', 'cd', 'ef'].map((prompt) => ({ prompt })),
          rewardFuncs: (completions) => completions.map(({ completion }) => completion.length % 7),
          peft: { r: 4 },
          args: {
            ...{ outputDir: null, maxSteps: 4, learningRate: 1e-3, numGenerations: 4, perDeviceTrainBatchSize: 8 },
            ...{ maxCompletionLength: 12, numIterations: 2, beta: 0.05 },
          },
          onRollouts: () => {
            if (loses.includes(++told)) opened.lose()
          },
        })
        const lines: unknown[] = []
        for await (const { tokensPerSecond: _, ...line } of trainer.train() as AsyncIterable<Record<string, number>>)
          lines.push(line)
        const [{ modules }] = opened.lm.model.adapters.values()
        const lost = opened.lost()
        await opened.close()
        return { lines, told, lost, numbers: [...modules.values()].map(({ a, b }) => [a, b]) }
      }
      const [calm, disturbed] = [await train([]), await train([1, 2])]
      expect([calm.lost, disturbed.lost]).toEqual([0, 2])
      expect(disturbed.lines).toEqual(calm.lines)
      expect(disturbed.told).toBe(calm.told)
      expect(disturbed.numbers).toEqual(calm.numbers)
    })
  })
}
