import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { makeProblem } from '../../examples/nano/problems.ts'
import { openModel } from '../../sdk/formats/stored-model.ts'
import { storeAt } from '../../sdk/store/store.ts'
import { readAs } from '../formats/read-as.ts'
import { halfling, halflingJson, noPebble, pebble } from './halfling.ts'

const root = mkdtempSync(join(tmpdir(), 'halfling-quantize-'))
afterAll(() => rmSync(root, { recursive: true }))
const at = (name: string) => join(root, name)
const nano = fileURLToPath(new URL('../../models/nano', import.meta.url))

const greedy = [
  '--prompt',
  'Ann has 3 apples and buys 4 more. How many?',
  '--temperature',
  '0',
  '--max-new-tokens',
  '12',
]
async function answer(model: string, ...more: string[]): Promise<number[]> {
  const { code, value } = await halflingJson(['chat', '--model', model, ...greedy, ...more])
  expect(code).toBe(0)
  expect(value.tokenIds.length).toBeGreaterThan(0)
  return value.tokenIds
}

describe('quantize', () => {
  it('makes a GGUF file of the built-in model, which answers as the folder does', async () => {
    const { code, stdout } = await halfling(['quantize', '--output', at('nano.gguf')])
    expect(code).toBe(0)
    const lines = stdout.trimEnd().split('\n')
    expect(lines[0].split(/ +/)).toEqual(['part', 'type', 'weights', 'error'])
    // The matrices are q8 already; the table becomes it.
    expect(lines.find((line) => line.startsWith('mlp'))).toMatch(/^mlp +q8 +[\d,]+ +0$/)
    expect(lines.find((line) => line.startsWith('embedding'))).toMatch(/^embedding +q8 +[\d,]+ +0\.\d+%$/)
    expect(lines.at(-1)).toMatch(/nano\.gguf: \d\.\d MB of weights, from \d\.\d MB$/)
    expect(await answer(at('nano.gguf'))).toEqual(await answer(nano))
  })

  it('makes a folder, does not write over it, and replaces it when told to', async () => {
    const f32 = await halflingJson(['quantize', '--model', nano, '--output', at('folder'), '--dtype', 'f32'])
    expect([f32.code, f32.value.output, f32.value.relativeError]).toEqual([0, at('folder'), 0])
    expect(f32.value.parts.map(({ part, dtype }: { part: string; dtype: string }) => `${part} ${dtype}`)).toEqual([
      'embedding f32',
      'vectors f32',
      'attention f32',
      'mlp f32',
    ])
    const again = ['quantize', '--model', nano, '--output', at('folder'), '--dtype', 'q8']
    const refused = await halflingJson(again)
    expect([refused.code, refused.value.error.code]).toEqual([1, 'option'])
    expect(refused.value.error.message).toContain(`${at('folder')}: has files in it: give a new folder, or force`)
    const forced = await halflingJson([...again, '--force'])
    expect([forced.code, forced.value.relativeError]).toEqual([0, 0])
    // q8, f32, q8: the same again.
    const name = 'model.safetensors'
    expect(Buffer.compare(readFileSync(join(at('folder'), name)), readFileSync(join(nano, name)))).toBe(0)
  })

  it('makes q4a with a table of its own type, and says what rounding once more costs', async () => {
    const args = ['quantize', '--model', nano, '--dtype', 'q4a', '--token-embedding-type', 'q4a', '--output']
    const { value, stderr } = await halflingJson([...args, at('q4a.gguf')])
    const types = value.parts.map(({ part, dtype }: { part: string; dtype: string }) => `${part} ${dtype}`)
    expect(types.sort()).toEqual(['attention q4a', 'embedding q4a', 'mlp q4a', 'vectors f32'])
    // The built-in model's matrices are q8.
    expect(value.requantized).toMatchObject({ from: ['Q8_0'], relativeError: expect.closeTo(0.07, 1) })
    expect(stderr).toBe('')
    const { tensors } = await openModel(await storeAt(at('q4a.gguf')))
    expect(tensors.get('model.embed_tokens.weight')!.dtype).toBe('Q4_1')
    const again = await halfling(['quantize', '--model', at('q4a.gguf'), '--dtype', 'q4', '--output', at('q4.gguf')])
    expect(again.stderr).toMatch(
      /^warning: [\d,]+ weights were quantized already \(Q4_1\); .* changed them by [\d.]+%: take the unquantized/,
    )
    expect((await openModel(await storeAt(at('q4.gguf')))).tensors.get('model.embed_tokens.weight')!.dtype).toBe('Q8_0')
    const same = await halflingJson([
      'quantize',
      '--model',
      at('q4a.gguf'),
      '--dtype',
      'q4a',
      '--output',
      at('same.gguf'),
    ])
    expect([same.value.requantized, same.value.parts[0]]).toMatchObject([null, { dtype: 'q4a', relativeError: 0 }])
    const folder = await halfling([...args.slice(0, 3), '--dtype', 'f16', ...args.slice(5), at('x')])
    expect(folder.stderr).toContain('tokenEmbeddingType is for GGUF only: let the output end in .gguf')
  })

  it('comes closer to the model on data like what it is calibrated with', async () => {
    const problems = (seed: number, count: number) =>
      Array.from({ length: count }, (_, i) => JSON.stringify(makeProblem('backward', seed, i))).join('\n')
    writeFileSync(at('calibration.jsonl'), problems(1, 60))
    writeFileSync(at('held-out.jsonl'), problems(2, 60))
    const logProbs = async (model: string): Promise<number[]> => {
      const { value } = await halflingJson(['score', '--model', model, '--data', at('held-out.jsonl')])
      return value.tokenLogProbs.flat()
    }
    const make = ['quantize', '--dtype', 'q4a', '--output']
    await halfling([...make, at('plain.gguf')])
    const data = ['--calibration-data', at('calibration.jsonl')]
    expect((await halfling([...make, at('calibrated.gguf'), ...data])).stdout).toMatch(/mlp +q4a/)
    const [want, plain, calibrated] = [
      await logProbs('nano'),
      await logProbs(at('plain.gguf')),
      await logProbs(at('calibrated.gguf')),
    ]
    const apart = (got: number[]) => got.reduce((sum, x, i) => sum + Math.abs(x - want[i]), 0) / got.length
    expect(apart(calibrated) / apart(plain)).toBeLessThan(0.8)
    writeFileSync(at('short.txt'), problems(1, 3))
    for (const [flags, message] of [
      [['--calibration-data', at('short.txt'), '--dtype', 'q4a'], /short\.txt: has \d{3} tokens, give 2048 or more\n$/],
      [['--calibration-data', at('none.txt'), '--dtype', 'q4a'], /none\.txt: no such file\n$/],
      [[...data, '--dtype', 'q8'], /calibrationData changes nothing for q8: it is for q4a and q4\n$/],
    ] as const) {
      const failed = await halfling(['quantize', '--output', at('x.gguf'), ...flags])
      expect([failed.code, failed.stdout, failed.stderr]).toEqual([1, '', expect.stringMatching(message)])
    }
  })

  it('says what is wrong', async () => {
    const there = readdirSync(root)
    const cases: [args: string[], code: number, message: string][] = [
      [['--output', at('x'), '--dtype', 'q4'], 1, 'q4 is written as GGUF only: let the output end in .gguf'],
      [
        ['--output', at('x'), '--dtype', 'q5'],
        2,
        "argument 'q5' is invalid. Allowed choices are f32, f16, bf16, q8, q4a, q4",
      ],
      [[], 2, "required option '--output <path>' not specified"],
      [['--model', at('none'), '--output', at('x')], 1, 'none'],
      [['--output', join(nano, 'config.json', 'x.gguf')], 1, 'there is a file where a folder is wanted'],
    ]
    for (const [args, code, message] of cases) {
      const failed = await halfling(['quantize', ...args])
      expect([failed.code, failed.stdout], message).toEqual([code, ''])
      expect(failed.stderr).toContain(message)
    }
    expect(readdirSync(root)).toEqual(there)
  })
})

describe('merge', () => {
  const adapter = join(pebble, 'warm-adapter')
  it.skipIf(noPebble || !existsSync(adapter))('writes an adapted model that needs no adapter', async () => {
    const args = ['merge', '--model', pebble, '--adapter', adapter, '--output']
    const { code, value } = await halflingJson([...args, at('merged.gguf'), '--dtype', 'f32'])
    expect([code, value]).toEqual([
      0,
      { output: at('merged.gguf'), dtype: 'f32', outputBytes: 27_296_768, adapters: ['warm-adapter'] },
    ])
    const told = await halfling([...args, at('merged')])
    expect([told.code, told.stdout]).toEqual([
      0,
      `${at('merged')}: 13.6 MB of weights in bf16, with warm-adapter merged in\n`,
    ])
    const score = async (...model: string[]) =>
      (await halflingJson(['score', '--text', 'Ben is 3 years older than Ann.', '--model', ...model])).value
    const [base, adapted, merged] = [
      await score(pebble),
      await score(pebble, '--adapter', adapter),
      await score(at('merged.gguf')),
    ]
    expect(merged.meanLogProb).toBeCloseTo(adapted.meanLogProb, 5)
    expect(Math.abs(base.meanLogProb - adapted.meanLogProb)).toBeGreaterThan(1e-3)
    const [folder, file] = [
      await openModel(await storeAt(at('merged'))),
      await openModel(await storeAt(at('merged.gguf'))),
    ]
    for (const [name, tensor] of file.tensors)
      expect(Buffer.compare(await folder.tensors.get(name)!.read(), await readAs(tensor, 'bf16')), name).toBe(0)
    const refused = await halfling([...args, at('merged')])
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain('has files in it')
  })
})
