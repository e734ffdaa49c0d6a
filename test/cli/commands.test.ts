import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writeTinyModel } from '../../examples/tiny-model.ts'
import { halfling, halflingJson } from './halfling.ts'

const folder = mkdtempSync(join(tmpdir(), 'halfling-cli-'))
const model = join(folder, 'model')
const rows = join(folder, 'rows.jsonl')
beforeAll(async () => {
  await writeTinyModel(model)
  const lines = ['ab', 'cd', 'ef', 'gh', 'ij', 'kl'].map((question, i) =>
    JSON.stringify({ question, answer: `#### ${i}` }),
  )
  writeFileSync(rows, lines.join('\n'))
})
afterAll(() => rmSync(folder, { recursive: true }))

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length
const metricsOf = (out: string) =>
  readFileSync(join(out, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))

describe('generate', () => {
  it('prints the documented object, the same from standard input and for the same seed', async () => {
    const sampling = ['--temperature', '1', '--top_p', '0.9', '--seed', '5', '--max-new-tokens', '8']
    const fromFlag = await halflingJson(['generate', '--model', model, '--prompt', 'hello', ...sampling])
    const fromInput = await halflingJson(['generate', '--model', model, ...sampling], { input: 'hello\n' })
    const { text, tokenIds, logProbs, finishReason, device, timings, ...rest } = fromFlag.value
    expect(fromFlag.code).toBe(0)
    expect(rest).toEqual({})
    expect(typeof text).toBe('string')
    expect(tokenIds).toHaveLength(finishReason === 'length' ? 8 : logProbs.length)
    expect(logProbs.every((p: number) => p < 0)).toBe(true)
    expect(device).toBe('wasm')
    expect(Object.keys(timings)).toEqual(['loadSeconds', 'prefillTokensPerSecond', 'decodeTokensPerSecond'])
    expect(timings.loadSeconds).toBeGreaterThan(0)
    expect(fromInput.value.tokenIds).toEqual(tokenIds)
    expect(fromInput.value.logProbs).toEqual(logProbs)
  })

  it('ends before a stop string', async () => {
    const args = ['generate', '--model', model, '--prompt', 'abc', '--max-new-tokens', '24']
    const { text } = (await halflingJson(args)).value
    const stop = [...text][2]
    const stopped = (await halflingJson([...args, '--stop', stop])).value
    expect(stopped.text).toBe(text.slice(0, text.indexOf(stop)))
    expect(stopped.finishReason).toBe('stop')
  })
})

describe('chat', () => {
  it('answers one turn, and a conversation line by line', async () => {
    const flags = ['--model', model, '--max-new-tokens', '6', '--system', 'Be brief.']
    const one = (await halflingJson(['chat', ...flags, '--prompt', 'hi'])).value
    const talk = await halfling(['chat', ...flags], { input: 'hi\nhi\n' })
    expect(talk.code).toBe(0)
    expect(talk.stdout.startsWith(`${one.text}\n`)).toBe(true)
    expect(talk.stdout.length).toBeGreaterThan(one.text.length + 1)
  })
})

describe('score', () => {
  it('scores every token of a text but the first, from a flag or a file', async () => {
    const { value } = await halflingJson(['score', '--model', model, '--text', 'abcde'])
    const { tokens, meanLogProb, perplexity, tokensPerSecond, windows, tokenLogProbs, ...rest } = value
    expect(rest).toEqual({})
    expect(tokens).toBe(4)
    expect(tokensPerSecond).toBeGreaterThan(0)
    expect(windows).toEqual([{ tokens: 4, meanLogProb }])
    expect(tokenLogProbs).toHaveLength(4)
    expect(meanLogProb).toBeCloseTo(mean(tokenLogProbs), 10)
    expect(perplexity).toBeCloseTo(Math.exp(-meanLogProb), 6)
    const file = join(folder, 'text.txt')
    writeFileSync(file, 'abcde')
    const again = (await halflingJson(['score', '--model', model, '--file', file])).value
    expect(again).toEqual({ ...value, tokensPerSecond: again.tokensPerSecond })
  })

  it('cuts a text into windows that know nothing of each other, and pairs them with another model', async () => {
    const file = join(folder, 'windows.txt')
    writeFileSync(file, 'abcdefghijklmnopqrstuvwxyz')
    const flags = ['--window', '8', '--max-tokens', '21']
    const { value } = await halflingJson(['score', '--model', model, '--data', file, ...flags, '--against', model])
    const { against, ...own } = value
    // 8, 8 and 5 tokens, the first of each not scored.
    expect(own.windows.map(({ tokens }: { tokens: number }) => tokens)).toEqual([7, 7, 4])
    const third = (await halflingJson(['score', '--model', model, '--text', 'qrstu'])).value
    expect(own.windows[2].meanLogProb).toBeCloseTo(third.meanLogProb, 5)
    expect(own.tokenLogProbs).toHaveLength(18)
    expect(against).toMatchObject({ model, percent: 0, standardError: 0, perplexity: own.perplexity })
    const { code, stderr } = await halfling(['score', '--model', model, '--data', rows, '--window', '8'])
    expect([code, stderr]).toEqual([2, expect.stringContaining("'--window' and '--max-tokens' are for a text")])
  })

  it('scores the completions of rows', async () => {
    const { tokens, meanLogProb, tokenLogProbs } = (await halflingJson(['score', '--model', model, '--data', rows]))
      .value
    // "#### 0<|im_end|>\n": 6 bytes, the end of the turn and what the template writes after it.
    expect(tokenLogProbs.map((row: number[]) => row.length)).toEqual([8, 8, 8, 8, 8, 8])
    expect(tokens).toBe(48)
    expect(meanLogProb).toBeCloseTo(mean(tokenLogProbs.flat()), 10)
  })
})

describe('sft', () => {
  const common = ['sft', '--model', model, '--data', rows, '--per-device-train-batch-size', '2', '--lora-r', '4']

  it('writes metrics and an adapter, which generate takes; --resume at the end changes nothing', async () => {
    const out = join(folder, 'lora')
    const args = [...common, '--output-dir', out, '--max-steps', '4', '--save-steps', '2', '--resume']
    const { code, value } = await halflingJson(args)
    expect(code).toBe(0)
    const lines = metricsOf(out)
    expect(lines.map((line) => line.step)).toEqual([1, 2, 3, 4])
    expect(Object.keys(lines[0])).toEqual([
      ...['step', 'epoch', 'loss', 'gradNorm', 'learningRate', 'tokens', 'tokensPerSecond'],
    ])
    expect(value).toEqual({ ...lines[3], outputDir: out })
    expect(readdirSync(out).sort()).toEqual([
      ...['adapter_config.json', 'adapter_model.safetensors', 'checkpoint-2', 'checkpoint-4', 'metrics.jsonl'],
    ])
    const adapter = readFileSync(join(out, 'adapter_model.safetensors'))
    expect((await halflingJson(args)).value).toEqual(value)
    expect(readFileSync(join(out, 'adapter_model.safetensors')).equals(adapter)).toBe(true)

    const prompt = ['generate', '--model', model, '--prompt', 'abc', '--max-new-tokens', '4']
    const [base, adapted] = [await halflingJson(prompt), await halflingJson([...prompt, '--adapter', out])]
    expect(adapted.value.logProbs).not.toEqual(base.value.logProbs)
  })

  it('trains all weights with --full and evaluates, as a config file says; plots the loss', async () => {
    const out = join(folder, 'full')
    const config = join(folder, 'full.yaml')
    writeFileSync(config, `full: true\nmax_steps: 50\nlearning_rate: 1e-3\neval_data: ${rows}\nsave_strategy: 'no'\n`)
    const args = ['sft', '--model', model, '--data', rows, '--output-dir', out, '--config', config]
    const flags = ['--max-steps', '2', '--per-device-train-batch-size', '6']
    const { code, stdout, stderr } = await halfling([...args, ...flags])
    expect(code).toBe(0)
    expect(stdout).toMatch(/┤[\u2800-\u28ff]/)
    expect(stderr).toMatch(/^2 steps; memory for the largest batch \(\d+ tokens\): [\d.]+ MB \(weights /)
    const [first, evaluated, second] = metricsOf(out)
    expect(first).toMatchObject({ step: 1, learningRate: 1e-3 })
    expect(evaluated).toEqual({ step: 1, evalLoss: expect.any(Number) })
    expect(second.loss).toBeLessThan(first.loss)
    expect(existsSync(join(out, 'model.safetensors'))).toBe(true)
    const text = (await halflingJson(['generate', '--model', out, '--prompt', 'abc', '--max-new-tokens', '2'])).value
    expect(text.tokenIds).toHaveLength(2)
  })

  it('ends at Ctrl-C with exit code 130, a whole checkpoint and nothing half-written; --resume goes on from it', async () => {
    const out = join(folder, 'interrupted')
    const args = [...common, '--output-dir', out, '--save-steps', '3']
    const started = () => existsSync(join(out, 'checkpoint-3'))
    const { code, stderr, value } = await halflingJson([...args, '--max-steps', '100000'], { interruptWhen: started })
    expect(code).toBe(130)
    expect(value.error.code).toBe('interrupted')
    expect(value.error.message).toContain('--resume goes on from')
    expect(stderr).not.toContain('    at ')
    const files = readdirSync(out)
    expect(files.filter((name) => !/^checkpoint-\d+$/.test(name))).toEqual(['metrics.jsonl'])
    const last = Math.max(...files.map((name) => Number(/^checkpoint-(\d+)$/.exec(name)?.[1] ?? 0)))
    const resumed = await halflingJson([...args, '--max-steps', String(last + 2), '--resume'])
    expect(resumed.value.step).toBe(last + 2)
    expect(metricsOf(out).map((line) => line.step)).toEqual(Array.from({ length: last + 2 }, (_, i) => i + 1))
  })
})

describe('eval', () => {
  it('counts right answers; a random model has none', async () => {
    const { code, value } = await halflingJson([
      'eval',
      '--model',
      model,
      '--data',
      rows,
      '--limit',
      '5',
      '--max-new-tokens',
      '4',
    ])
    expect(code).toBe(0)
    expect(value).toEqual({ n: 5, correct: 0, accuracy: 0, standardError: 0 })
  })
})

describe('bench and devices', () => {
  it('print speeds', async () => {
    const sizes = [
      '--prompt-tokens',
      '32',
      '--tokens',
      '4',
      '--train-tokens',
      '32',
      '--train-steps',
      '1',
      '--threads',
      '1',
    ]
    const { value } = await halflingJson(['bench', '--model', model, ...sizes])
    expect(value).toMatchObject({ model, device: 'wasm', threads: 1 })
    for (const what of ['prefill', 'decode', 'training']) expect(value[`${what}TokensPerSecond`]).toBeGreaterThan(0)
  })

  it('a profile of kernels is for a device that times them', async () => {
    const sizes = ['--prompt-tokens', '4', '--tokens', '2', '--train-steps', '0', '--threads', '1']
    const { code, value } = await halflingJson(['bench', '--model', model, ...sizes, '--profile'])
    expect(code).not.toBe(0)
    expect(value.error).toMatchObject({ code: 'device', message: expect.stringMatching(/^wasm does not time single/) })
  })

  it('export a model in each format, and say what goes where', async () => {
    const to = (name: string) => join(folder, `export-${name}`)
    const { value } = await halflingJson(['export', '--output', to('onnx'), '--dtype', 'q4', 'q8'])
    expect(value.files).toEqual(['model_q4.onnx', 'model_quantized.onnx'])
    expect(readdirSync(join(to('onnx'), 'onnx')).sort()).toEqual(value.files)
    await halflingJson(['export', '--format', 'safetensors', '--output', to('folder')])
    expect(existsSync(join(to('folder'), 'model.safetensors'))).toBe(true)
    await halflingJson(['export', '--format', 'gguf', '--output', to('q8.gguf')])
    expect(existsSync(to('q8.gguf'))).toBe(true)
    const refused = async (...args: string[]) => (await halfling(['export', ...args])).stderr
    expect(await refused('--output', to('bf16'), '--dtype', 'bf16')).toContain(
      '--dtype bf16: onnx files are written in f32, q4, q8',
    )
    expect(await refused('--format', 'gguf', '--output', to('no'))).toContain(
      'gguf goes into a file that ends in .gguf',
    )
    expect(existsSync(to('bf16')) || existsSync(to('no'))).toBe(false)
  })

  it('say what a device needs to be installed', async () => {
    const { value } = await halflingJson(['setup', 'cpu'])
    const command = 'ONNXRUNTIME_NODE_INSTALL=skip npm install onnxruntime-node koffi'
    expect(value).toEqual({ device: 'cpu', command })
  })

  it('print what is there and why the rest is not', async () => {
    const { machine, devices } = (await halflingJson(['devices', '--threads', '1'])).value
    expect(Object.keys(machine)).toEqual(['cores', 'memory', 'freeMemory'])
    const [cuda, webgpu, cpu, wasm, reference] = devices
    expect(cuda).toEqual({ name: 'cuda', available: false, reason: 'not built yet' })
    // A machine may have a GPU or not; why not is said.
    expect(webgpu).toMatchObject({ name: 'webgpu', available: expect.any(Boolean), reason: expect.stringMatching(/./) })
    expect(cpu).toMatchObject({
      name: 'cpu',
      available: true,
      threads: 1,
      reason: expect.stringMatching(/^onnxruntime 1/),
    })
    expect(wasm).toMatchObject({ name: 'wasm', available: true, threads: 1, memoryLimit: 2 ** 32 })
    expect(Object.keys(reference)).toEqual(['name', 'available', 'reason'])
    // 24 layers, keys and values of 128 numbers each; 358M weights at 18 bytes for 32 and a table of 136M at 34.
    const beside = 2 ** 32 - (357.8e6 * 18 + 136.1e6 * 34) / 32
    expect(wasm.contextOfHalfBillion.f32 / (beside / (24 * 2 * 128 * 4))).toBeCloseTo(1, 3)
    expect(wasm.contextOfHalfBillion.f16 / (beside / (24 * 2 * 128 * 2))).toBeCloseTo(1, 3)
    const { gflops, gigabytes, tokensOfHalfBillion } = wasm.speed
    const rates = [gflops, ...Object.values<number>(gigabytes), ...Object.values<number>(tokensOfHalfBillion)]
    for (const rate of rates) expect(rate).toBeGreaterThan(0.1)
    // Whichever is faster, each once.
    const { decoding } = cpu.speed.tokensOfHalfBillion
    expect((decoding > tokensOfHalfBillion.decoding ? cpu : wasm).autoFor).toContain('decoding')
    expect([...cpu.autoFor, ...wasm.autoFor].sort()).toEqual(['decoding', 'prefill', 'training'])
  })
})
