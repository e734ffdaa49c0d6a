import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { halfling } from '../cli/halfling.ts'

// A disk of 900 kB: what does not fit is said, and nothing half-written is left.

const disk = mkdtempSync(join(tmpdir(), 'halfling-disk-'))
const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=900k', 'tmpfs', disk]).status === 0
const reason = mounted ? false : 'a file system can only be mounted by root on Linux'
afterAll(() => {
  if (mounted) spawnSync('umount', [disk])
  rmSync(disk, { recursive: true, force: true })
})

const data = join(mkdtempSync(join(tmpdir(), 'halfling-rows-')), 'rows.jsonl')
writeFileSync(data, '{"question": "What is 2 + 3?", "answer": "5"}\n')
const everything = (folder: string) => readdirSync(folder, { recursive: true, encoding: 'utf8' })

describe.skipIf(reason)(`a full disk${reason ? ` (${reason})` : ''}`, () => {
  it('ends training with a message and no half checkpoint', async () => {
    const out = join(disk, 'out')
    const flags = ['--max-steps', '6', '--save-steps', '1', '--lora-r', '8', '--lora-target-modules', 'all-linear']
    const { code, stderr } = await halfling(['sft', '--data', data, '--output-dir', out, ...flags])
    expect(code).toBe(1)
    expect(stderr).toMatch(/error: .*cannot be written: the disk is full/)
    expect(everything(out).filter((name) => /\.tmp|run\.lock/.test(name))).toEqual([])
    // What is there is whole: a run that needs less goes on from it.
    rmSync(out, { recursive: true })
  })

  it.each(['quantize', 'merge'])('%s leaves nothing behind', async (name) => {
    const adapter = join(data, '../adapter')
    if (name === 'merge')
      expect((await halfling(['sft', '--data', data, '--output-dir', adapter, '--max-steps', '1'])).code).toBe(0)
    const command = [name, '--dtype', 'f32', ...(name === 'merge' ? ['--adapter', adapter] : [])]
    for (const output of ['model.gguf', 'folder']) {
      const { code, stderr } = await halfling([...command, '--output', join(disk, output)])
      expect(code, stderr).toBe(1)
      expect(stderr).toMatch(/the disk is full/)
      expect(everything(disk)).toEqual([])
    }
  })

  it('a teacher cache keeps the shards that are whole', async () => {
    const cache = join(disk, 'cache')
    mkdirSync(cache)
    const rows = join(tmpdir(), `halfling-many-${process.pid}.jsonl`)
    const row = (i: number) => JSON.stringify({ text: `What is ${i} + ${i}? `.repeat(20) })
    writeFileSync(rows, Array.from({ length: 160 }, (_, i) => row(i)).join('\n'))
    const { code, stderr } = await halfling([
      'teacher',
      'build',
      '--data',
      rows,
      '--output',
      cache,
      '--shard-rows',
      '10',
    ])
    rmSync(rows)
    expect(code).toBe(1)
    expect(stderr).toMatch(/the disk is full/)
    expect(everything(cache).filter((name) => name.endsWith('.tmp'))).toEqual([])
  })
})
