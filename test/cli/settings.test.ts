import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterAll, describe, expect, it } from 'vitest'
import { aliases, grpoKeys, sftKeys } from '../../sdk/cli/keys.ts'
import { kebabFlag } from '../../sdk/cli/names.ts'
import { addFlags, readSettings } from '../../sdk/cli/settings.ts'
import { loraOf } from '../../sdk/cli/train.ts'
import { nearest } from '../../sdk/nearest.ts'
import type { OptionTable } from '../../sdk/option-table.ts'

const folder = mkdtempSync(join(tmpdir(), 'halfling-settings-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** The settings of a command line. */
function settings(...argv: string[]) {
  return settingsOf(sftKeys, ...argv)
}

function settingsOf<T extends OptionTable>(keys: T, ...argv: string[]) {
  const command = new Command().exitOverride().configureOutput({ writeErr: () => {} })
  addFlags(command, keys)
  command.parse(argv.map(kebabFlag), { from: 'user' })
  return readSettings(command.opts(), keys, aliases)
}

function config(text: string): string {
  const file = join(folder, `${Math.random()}.yaml`)
  writeFileSync(file, text)
  return file
}

/** The message without the temporary folder. */
function refusal(...argv: string[]): string {
  try {
    settings(...argv)
  } catch (error) {
    return (error as Error).message.replace(/\S*\.yaml/, 'run.yaml')
  }
  throw new Error('nothing was refused')
}

describe('flags of sft', () => {
  it('reads numbers, booleans, null, lists and maps', () => {
    expect(
      settings(
        ...['--learning-rate', '1e-4', '--max_steps=7', '--packing', '--gradient-checkpointing', 'false'],
        ...['--save-total-limit', 'null', '--columns', '{question: q}', '--output-dir', '2024', '--adapter', 'a', 'b'],
        ...['--no-completion-only-loss', '--lora-target-modules', 'q_proj', 'v_proj', '--rank_pattern', '{q_proj: 4}'],
      ),
    ).toEqual({
      learningRate: 1e-4,
      maxSteps: 7,
      packing: true,
      gradientCheckpointing: false,
      saveTotalLimit: null,
      columns: { question: 'q' },
      outputDir: '2024',
      adapter: ['a', 'b'],
      completionOnlyLoss: false,
      loraTargetModules: ['q_proj', 'v_proj'],
      rankPattern: { q_proj: 4 },
    })
  })

  it('reads lists of numbers, and of texts that look like numbers', () => {
    const flags = ['--reward-weights', '1', '0.5', '--layers-to-transform', '0', '3', '--adapter', 'a', '7']
    expect(settingsOf(grpoKeys, ...flags)).toEqual({
      rewardWeights: [1, 0.5],
      layersToTransform: [0, 3],
      adapter: ['a', '7'],
    })
  })

  it('refuses what does not fit, and suggests the nearest flag', () => {
    expect(refusal('--learning-rate', 'fast')).toMatchInlineSnapshot(
      `"option '--learning-rate': "fast" is not a number above 0"`,
    )
    expect(refusal('--max-steps', '1.5')).toMatchInlineSnapshot(`"option '--max-steps': 1.5 is not an integer"`)
    expect(refusal('--lr-scheduler-type', 'cosin')).toMatchInlineSnapshot(
      `"option '--lr-scheduler-type': "cosin" is not one of linear, cosine, constant, constant_with_warmup"`,
    )
    expect(refusal('--packing', 'perhaps')).toMatchInlineSnapshot(
      `"option '--packing': "perhaps" is not true or false"`,
    )
    expect(refusal('--lerning-rate', '1')).toMatchInlineSnapshot(`
      "error: unknown option '--lerning-rate'
      (Did you mean --learning-rate?)"
    `)
  })
})

describe('--config', () => {
  it("takes TRL's snake_case and camelCase, aliases included", () => {
    const file = config(
      'model_name_or_path: m\nlearning_rate: 1e-4\nmaxSteps: 5\nlora_r: 4\nlora_modules_to_save: [lm_head]\nuse_dora: true\neval_steps:\n',
    )
    expect(settings('--config', file)).toEqual({
      model: 'm',
      learningRate: 1e-4,
      maxSteps: 5,
      loraR: 4,
      modulesToSave: ['lm_head'],
      useDora: true,
    })
  })

  it('gives way to flags', () => {
    const file = config('learning_rate: 1e-4\nmax_steps: 5\npacking: true\n')
    expect(settings('--config', file, '--max-steps', '9', '--no-packing')).toEqual({
      learningRate: 1e-4,
      maxSteps: 9,
      packing: false,
    })
  })

  it('refuses unknown keys with the nearest known one, in the same spelling', () => {
    expect(refusal('--config', config('lerning_rate: 1'))).toMatchInlineSnapshot(
      `"run.yaml: unknown key 'lerning_rate'; did you mean learning_rate?"`,
    )
    expect(refusal('--config', config('maxStep: 1'))).toMatchInlineSnapshot(
      `"run.yaml: unknown key 'maxStep'; did you mean maxSteps?"`,
    )
    expect(refusal('--config', config('lora_rank: 1'))).toMatchInlineSnapshot(
      `"run.yaml: unknown key 'lora_rank'; did you mean lora_r?"`,
    )
    expect(refusal('--config', config('__proto__x: 1'))).toMatchInlineSnapshot(`"run.yaml: unknown key '__proto__x'"`)
  })

  it('refuses wrong values, keys twice and what is no map', () => {
    expect(refusal('--config', config('learning_rate: fast'))).toMatchInlineSnapshot(
      `"run.yaml: learning_rate: "fast" is not a number above 0"`,
    )
    expect(refusal('--config', config('max_steps: 1\nmaxSteps: 2'))).toMatchInlineSnapshot(
      `"run.yaml: 'maxSteps' is given twice (as maxSteps)"`,
    )
    expect(refusal('--config', config('- 1'))).toMatchInlineSnapshot(`"run.yaml: it is not a map of keys"`)
    expect(refusal('--config', config('a: ['))).toContain('run.yaml: ')
    expect(refusal('--config', join(folder, 'none.yaml'))).toContain('no such file')
  })
})

describe('loraOf', () => {
  it("has PEFT's names and no more than was given", () => {
    const settings = { loraR: 4, useRslora: true, maxSteps: 3 }
    expect(loraOf(settings)).toEqual({ r: 4, useRslora: true })
  })

  it('takes one plain word for a module, anything else for a regular expression', () => {
    expect(loraOf({ loraTargetModules: ['q_proj'] }).targetModules).toEqual(['q_proj'])
    expect(loraOf({ loraTargetModules: ['all-linear'] }).targetModules).toBe('all-linear')
    expect(loraOf({ loraTargetModules: '.*q_proj' }).targetModules).toBe('.*q_proj')
    expect(loraOf({ excludeModules: ['v_proj'] }).excludeModules).toEqual(['v_proj'])
  })
})

describe('nearest', () => {
  it('counts edits and swaps, and gives up on what is far', () => {
    expect(nearest('sede', ['seed', 'send'])).toBe('seed')
    expect(nearest('warmup', ['warmupSteps', 'warmupRatio', 'maxSteps'])).toBeUndefined()
    expect(nearest('xyzzy', ['model', 'data'])).toBeUndefined()
  })
})
