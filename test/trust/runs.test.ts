import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readFloats } from '../../sdk/formats/stored.ts'
import { openModel } from '../../sdk/formats/stored-model.ts'
import { randomBits } from '../../sdk/random.ts'
import { storeAt } from '../../sdk/store/store.ts'
import { halfling } from '../cli/halfling.ts'

// Ctrl-C and kill -9 at any moment, and folders that nobody may write to: what is there afterwards is whole.

const folder = mkdtempSync(join(tmpdir(), 'halfling-runs-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const data = join(folder, 'rows.jsonl')
writeFileSync(data, '{"question": "What is 2 + 3?", "answer": "5"}\n{"question": "What is 4 + 5?", "answer": "9"}\n')

const sft = (outputDir: string, ...more: string[]) =>
  ['sft', '--data', data, '--output-dir', outputDir, '--threads', '1', '--lora-r', '4', ...more] as const
const short = ['--max-steps', '1', '--save-strategy', 'no']
const adapter = join(folder, 'adapter')
beforeAll(async () => {
  const { code, stderr } = await halfling(sft(adapter, ...short))
  expect(code, stderr).toBe(0)
}, 60_000)

/** True some time after `start` was; the time is drawn from a seed. */
function soonAfter(start: () => boolean, milliseconds: number, ...seed: [number, number]): () => boolean {
  let at = 0
  return () => {
    if (at === 0 && start()) at = performance.now()
    return at > 0 && performance.now() - at >= (randomBits(...seed) / 2 ** 32) * milliseconds
  }
}

/** Everything that a model is made of can be read. */
async function readModel(path: string): Promise<void> {
  const { tensors } = await openModel(await storeAt(path))
  for (const tensor of tensors.values()) await readFloats(tensor)
}

describe('sft that is cut off again and again', () => {
  const steps = 30
  const flags = ['--max-steps', String(steps), '--save-steps', '3', '--save-total-limit', '2']
  const losses = (outputDir: string) =>
    readFileSync(join(outputDir, 'metrics.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => ({ ...JSON.parse(line), tokensPerSecond: 0 }))

  it('goes on each time, and ends where an uninterrupted run ends', async () => {
    const [whole, cut] = [join(folder, 'whole'), join(folder, 'cut')]
    const start = performance.now()
    expect((await halfling(sft(whole, ...flags))).code).toBe(0)
    const duration = performance.now() - start
    let [cutOff, code] = [0, null as number | null]
    for (let round = 0; round < 6; round++) {
      const before = existsSync(cut) ? readdirSync(cut).join() : ''
      // From the third on not before something has changed, so that it gets on.
      const changed = () => round < 2 || (existsSync(cut) && readdirSync(cut).join() !== before)
      const interruptWhen = round < 5 ? soonAfter(changed, duration / 2, 5, round) : undefined
      const signal = round % 2 ? 'SIGINT' : 'SIGKILL'
      const run = await halfling(sft(cut, ...flags, '--resume'), { interruptWhen, signal })
      code = run.code
      // null: killed, or interrupted before it listens. 0: done before that.
      expect(signal === 'SIGINT' ? [0, null, 130] : [0, null], run.stderr).toContain(code)
      if (code !== 0) cutOff++
    }
    expect(code).toBe(0)
    expect(cutOff).toBeGreaterThanOrEqual(3)
    expect(losses(cut)).toEqual(losses(whole))
    const weights = 'adapter_model.safetensors'
    expect(readFileSync(join(cut, weights)).equals(readFileSync(join(whole, weights)))).toBe(true)
    expect(readdirSync(cut).sort()).toEqual(readdirSync(whole).sort())
  }, 120_000)
})

describe.each([
  ['quantize', []],
  ['merge', ['--adapter', adapter]],
])('%s that is cut off while it writes', (name, more) => {
  const write = (output: string, dtype: string, options: Parameters<typeof halfling>[1] = {}) =>
    halfling([name, ...more, '--dtype', dtype, '--output', output, '--force'], options)

  it.each(['folder', 'model.gguf'])(
    'leaves the old %s or the new one',
    async (file) => {
      const parent = mkdtempSync(join(folder, `${name}-`))
      const output = join(parent, file)
      expect((await write(output, 'q8')).code).toBe(0)
      const beside = () => readdirSync(parent).length > 1
      for (const [round, signal] of (['SIGINT', 'SIGKILL'] as const).entries()) {
        const { code, stderr } = await write(output, 'f32', { interruptWhen: soonAfter(beside, 60, 6, round), signal })
        // Quick enough, it is done before.
        expect(signal === 'SIGINT' ? [0, 130] : [0, null], stderr).toContain(code)
        await readModel(output)
        if (signal === 'SIGINT') expect(readdirSync(parent)).toEqual([file])
      }
    },
    60_000,
  )
})

const closed = join(folder, 'closed')
mkdirSync(closed)
const isRoot = process.getuid?.() === 0
// Root may write wherever the file system can be written.
const isClosed = isRoot
  ? spawnSync('mount', ['-t', 'tmpfs', '-o', 'ro', 'tmpfs', closed]).status === 0
  : process.platform !== 'win32'
if (!isRoot) chmodSync(closed, 0o500)
afterAll(() => {
  if (isRoot && isClosed) spawnSync('umount', [closed])
})

describe.skipIf(!isClosed)('a folder that nobody may write to', () => {
  it.each([
    ['sft', sft(join(closed, 'out'), ...short)],
    ['sft, the folder itself', sft(closed, ...short)],
    ['quantize', ['quantize', '--output', join(closed, 'folder')]],
    ['quantize, GGUF', ['quantize', '--output', join(closed, 'model.gguf')]],
    ['merge', ['merge', '--adapter', adapter, '--output', join(closed, 'folder')]],
    ['teacher', ['teacher', 'build', '--data', data, '--output', join(closed, 'cache')]],
  ])('%s says so', async (_, args) => {
    const { code, stderr } = await halfling(args)
    expect(code, stderr).toBe(1)
    expect(stderr).toMatch(/^error: .*closed.* cannot be written: (permission denied|the file system is read-only)/m)
    expect(readdirSync(closed)).toEqual([])
  })
})
