import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { OptionError } from '../../sdk/errors.ts'
import type { LoraConfig } from '../../sdk/formats/lora-config.ts'
import { parseAdapterConfig } from '../../sdk/formats/peft.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { checkTrainable, resolveTargets, savedWeights } from '../../sdk/model/lora-targets.ts'

interface Table {
  readonly models: Record<string, unknown>
  readonly cases: {
    readonly model: string
    readonly config: Record<string, unknown>
    readonly modules: Record<string, [rank: number, alpha: number]>
    readonly saved: Record<string, number[]>
  }[]
}

// What PEFT itself adapts and copies: test/interop/targets.py.
const table = JSON.parse(readFileSync(new URL('peft-targets.json', import.meta.url), 'utf8')) as Table
const modelOf = (family: string) => parseConfig(table.models[family], family)

describe('modules are matched as PEFT matches them', () => {
  for (const { model, config, modules, saved } of table.cases)
    it(`${model} ${JSON.stringify(config)}`, () => {
      const lora = parseAdapterConfig({ peft_type: 'LORA', ...config }, 'table')
      const resolved = resolveTargets(lora, modelOf(model))
      expect(Object.fromEntries([...resolved].map(([path, t]) => [path, [t.rank, t.alpha]]))).toEqual(modules)
      expect(Object.fromEntries(savedWeights(lora, modelOf(model)))).toEqual(saved)
    })
})

describe('targets that cannot be', () => {
  const qwen = modelOf('qwen2')
  const base: LoraConfig = parseAdapterConfig({ peft_type: 'LORA', target_modules: ['q_proj'] }, 'base')
  const cases: [given: Partial<LoraConfig>, message: RegExp][] = [
    [{ targetModules: ['c_attn'] }, /no linear module "c_attn".*q_proj, k_proj, v_proj, o_proj, gate_proj/],
    [{ targetModules: ['q_proj', 'norm'] }, /no linear module "norm"/],
    [{ targetModules: 'q_proj' }, /"q_proj" matches no module.*regular expression over the whole path/],
    [{ targetModules: '.*(q_proj' }, /targetModules: .* no regular expression/],
    [{ targetModules: [] }, /matches no module/],
    [{ excludeModules: ['q_proj'] }, /matches no module/],
    [{ layersToTransform: [3] }, /matches no module/],
    [{ rankPattern: { '[': 2 } }, /rankPattern: "\[" is no regular expression/],
  ]
  for (const [given, message] of cases)
    it(JSON.stringify(given), () => {
      const resolve = () => resolveTargets({ ...base, ...given }, qwen)
      expect(resolve).toThrow(message)
      expect(resolve).toThrow(OptionError)
    })

  it.each<[string[] | string, string]>([
    [['q_proj', 'lm_head'], 'lm_head'],
    [['embed_tokens'], 'model.embed_tokens'],
    ['.*(q_proj|embed_tokens)', 'model.embed_tokens'],
  ])('%j is read, and not trained', (targetModules, path) => {
    const resolved = resolveTargets({ ...base, targetModules }, qwen)
    expect(resolved.get(path)).toEqual({ rank: 8, alpha: 8 })
    expect(() => checkTrainable(resolved.keys())).toThrow(
      new RegExp(`${path} cannot train as a LoRA adapter.* modulesToSave: \\['${path.replace('model.', '')}'\\]`),
    )
  })

  it('modulesToSave: score', () => {
    expect(() => savedWeights({ ...base, modulesToSave: ['score'] }, qwen)).toThrow(
      /no module "score" \(it has embed_tokens, .*lm_head\)/,
    )
  })
})
