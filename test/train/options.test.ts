import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { z } from 'zod'
import { addDistill } from '../../sdk/cli/commands/distill.ts'
import { addGrpo } from '../../sdk/cli/commands/grpo.ts'
import { addSft } from '../../sdk/cli/commands/sft.ts'
import { aliases, distillKeys, grpoKeys, loraKeys, sftKeys } from '../../sdk/cli/keys.ts'
import { kebabCase, snakeCase } from '../../sdk/cli/names.ts'
import { readConfig, readSettings } from '../../sdk/cli/settings.ts'
import { OptionError } from '../../sdk/errors.ts'
import { loraConfig } from '../../sdk/formats/lora-config.ts'
import type { LanguageModel } from '../../sdk/generate/language-model.ts'
import { createAdapter } from '../../sdk/model/lora.ts'
import { explain, type OptionSchema, type OptionTable, sentence } from '../../sdk/option-table.ts'
import { distillConfig, grpoConfig, sftConfig } from '../../sdk/train/config.ts'
import { DistillTrainer } from '../../sdk/train/distill.ts'
import { GRPOTrainer } from '../../sdk/train/grpo.ts'
import { SFTTrainer } from '../../sdk/train/sft.ts'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { randomModel } from './model.ts'

// Every option of every trainer, and of the adapter: its constructor, the flag, the key in a file and docs/api.md say the same.

const folder = mkdtempSync(join(tmpdir(), 'halfling-options-'))
let model: LanguageModel
beforeAll(async () => {
  model = await randomModel(await wasmTarget({ threads: 1 }))
})
afterAll(async () => {
  await model.close()
  rmSync(folder, { recursive: true })
})

type Args = Record<string, unknown>
const given = (args: Args) => ({ model, trainDataset: [], args: { outputDir: null, ...args } })
const commands = new Command()
for (const add of [addSft, addDistill, addGrpo]) add(commands)

interface Trainer {
  readonly config: OptionTable
  readonly keys: OptionTable
  /** In docs/api.md. */
  readonly type: string
  /** The name of an option as a key. */
  readonly keyOf: (name: string) => string
  /** Its settings with the defaults, or its error. */
  readonly fill: (args: Args) => object | Promise<object>
}

const trainers: Record<string, Trainer> = {
  sft: {
    ...{ config: sftConfig, keys: sftKeys, type: 'SFTConfig', keyOf: (name) => name },
    fill: (args) => new SFTTrainer(given(args)).args,
  },
  distill: {
    ...{ config: distillConfig, keys: distillKeys, type: 'DistillConfig', keyOf: (name) => name },
    fill: (args) => new DistillTrainer({ ...given(args), teacher: 'cache' }).args,
  },
  grpo: {
    ...{ config: grpoConfig, keys: grpoKeys, type: 'GRPOConfig', keyOf: (name) => name },
    fill: (args) => new GRPOTrainer({ ...given(args), rewardFuncs: () => [] }).args,
  },
}
const { baseModel: _, ...adapterConfig } = loraConfig
for (const [name, { keys }] of Object.entries(trainers))
  trainers[`the adapter of ${name}`] = {
    ...{ config: adapterConfig, keys, type: 'LoraConfig' },
    keyOf: (option) => ({ r: 'loraR', targetModules: 'loraTargetModules' })[option] ?? option,
    fill: async (args) => (await createAdapter('a', args, model.model, 1)).config,
  }

/** Values that a schema refuses, each of another kind. */
function wrongValues(s: OptionSchema): unknown[] {
  if (s.anyOf) return wrongValues(s.anyOf[0]).filter((value) => !Array.isArray(value))
  if (s.enum) return ['nonsense', 7]
  switch (s.type) {
    case 'boolean':
      return ['perhaps', 7]
    case 'string':
      return [7, true, ...(s.minLength ? [''] : [])]
    case 'array':
      return [{ a: 1 }, ...wrongValues(s.items!).map((value) => [value])]
    case 'object':
      return [7, ...wrongValues(s.additionalProperties!).map((value) => ({ a: value }))]
    default: {
      const { minimum, exclusiveMinimum, maximum, exclusiveMaximum } = s
      const ends = [minimum! - 1, exclusiveMinimum, maximum! + 1, exclusiveMaximum]
      return ['nonsense', ...(s.type === 'integer' ? [1.5] : []), ...ends.filter(Number.isSafeInteger)]
    }
  }
}

async function refusal(work: () => unknown): Promise<string> {
  const error = await Promise.resolve()
    .then(work)
    .then(
      () => new Error('nothing was refused'),
      (thrown) => thrown,
    )
  expect(error, error.message).toBeInstanceOf(OptionError)
  return error.message
}

function file(text: string): string {
  const path = join(folder, `${Math.random()}.yaml`)
  writeFileSync(path, text)
  return path
}

/** An argument of the command line; lists are several. */
const asFlag = (value: unknown): string[] =>
  [value].flat().map((one) => (typeof one === 'string' ? one : JSON.stringify(one)))

for (const [name, { config, keys, type, keyOf, fill }] of Object.entries(trainers)) {
  const command = commands.commands.find((one) => name.endsWith(one.name()))!
  const flagsOf = (argv: readonly string[]) => {
    const parser = new Command().exitOverride().configureOutput({ writeErr: () => {} })
    for (const option of command.options) if (!/json|print-config/.test(option.long!)) parser.addOption(option)
    return readSettings(parser.parse(argv, { from: 'user' }).opts(), keys, aliases)
  }
  const api = readFileSync('docs/api.md', 'utf8').split(`### ${type}\n`)[1].split('\n### ')[0]

  describe(name, () => {
    for (const [option, schema] of Object.entries(config)) {
      const key = keyOf(option)
      const flag = `--${kebabCase(key)}`

      it(`${option}: default and sentence`, async () => {
        const { description, default: usual } = explain(schema)
        expect(description).toMatch(/\w/)
        if (usual !== undefined) expect(((await fill({})) as Args)[option]).toEqual(usual)
        expect(keys[key]).toBe(schema)
        const told = command.options.find(({ long }) => long === flag)!
        expect(told.description).toBe(sentence(schema))
        const line = api
          .split('\n- ')
          .find((one) => one.startsWith(`\`${option}${option === 'outputDir' ? '' : '?'}: `))
        expect(line?.split('  \n  ')[1].trim()).toBe(sentence(schema))
        if (usual === undefined) return
        for (const written of [snakeCase(key), key])
          expect(readConfig(file(JSON.stringify({ [written]: usual })), keys, aliases)).toEqual({ [key]: usual })
      })

      it.each(wrongValues(explain(schema)).map((value) => [JSON.stringify(value), value]))(
        `${option}: %s is refused in the same words`,
        async (_, value) => {
          const message = await refusal(() => fill({ [option]: value }))
          expect(message).toMatch(new RegExp(`^${option}: .* is not `))
          const words = message.slice(option.length + 2)
          for (const written of [snakeCase(key), key]) {
            const path = file(JSON.stringify({ [written]: value }))
            expect(await refusal(() => readConfig(path, keys, aliases))).toBe(`${path}: ${written}: ${words}`)
          }
          // A flag's text is a text where one is wanted, and a list of one where a list is.
          if (takesText(schema) || (explain(schema).type === 'array' && !Array.isArray(value))) return
          expect(await refusal(() => flagsOf([flag, ...asFlag(value)]))).toBe(`option '${flag}': ${words}`)
        },
      )
    }

    it('has no option beside them', async () => {
      expect(await refusal(() => fill({ noSuchOption: 1 }))).toMatch(/there is no noSuchOption/)
      expect(Object.keys(loraKeys).every((key) => key in keys)).toBe(true)
    })
  })
}

const takesText = (schema: z.ZodType): boolean => schema.safeParse('7').success || schema.safeParse(['7']).success

describe('where limits are those of TRL, transformers and PEFT', () => {
  const sft = (args: Args) => refusal(() => new SFTTrainer(given(args)))

  it('a beta of Adam is below 1, a warm-up may take all steps', async () => {
    expect(await sft({ adamBeta1: 1 })).toBe('adamBeta1: 1 is not a number from 0 below 1')
    expect(await sft({ adamBeta2: 1 })).toBe('adamBeta2: 1 is not a number from 0 below 1')
    expect(new SFTTrainer(given({ warmupRatio: 1 })).args.warmupRatio).toBe(1)
    expect(await sft({ warmupRatio: 1.01 })).toBe('warmupRatio: 1.01 is not a number from 0 to 1')
  })

  it('a row has a token to score, dropout leaves something', async () => {
    expect(await sft({ maxLength: 1 })).toBe('maxLength: 1 is not an integer from 2')
    const peft = refusal(() => createAdapter('a', { loraDropout: 1 }, model.model, 1))
    expect(await peft).toBe('loraDropout: 1 is not a number from 0 below 1')
  })

  it("the batch of evaluations is TRL's alone: files may have it, a trainer has not", async () => {
    const path = file('per_device_eval_batch_size: 4\n')
    expect(readConfig(path, sftKeys, aliases)).toEqual({ perDeviceEvalBatchSize: 4 })
    expect(await sft({ perDeviceEvalBatchSize: 4 })).toMatch(/there is no perDeviceEvalBatchSize/)
  })

  it('learning rates and evaluations follow what is trained and given', () => {
    const rates = (peft: null | undefined) => [
      new SFTTrainer({ ...given({}), peft }).args.learningRate,
      new GRPOTrainer({ ...given({}), peft, rewardFuncs: () => [] }).args.learningRate,
    ]
    expect([rates(undefined), rates(null)]).toEqual([
      [2e-4, 1e-5],
      [2e-5, 1e-6],
    ])
    const evaluates = (evalDataset?: []) => new SFTTrainer({ ...given({}), evalDataset }).args.evalStrategy
    expect([evaluates(), evaluates([])]).toEqual(['no', 'epoch'])
    const { args } = new GRPOTrainer({
      ...given({ epsilon: 0.1, gradientAccumulationSteps: 2 }),
      rewardFuncs: () => [],
    })
    expect([args.epsilonHigh, args.stepsPerGeneration]).toEqual([0.1, 2])
  })
})
