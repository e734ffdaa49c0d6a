import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

// Who may import whom (docs/tour.md). A room may always import itself and the leaves.
const leaves = ['sdk/errors.ts', 'sdk/dtype.ts', 'sdk/random.ts', 'sdk/pattern.ts', 'sdk/options.ts', 'sdk/nearest.ts']
const may: Record<string, string[]> = {
  'sdk/graph': ['sdk/target.ts'],
  'sdk/target.ts': ['sdk/graph'],
  'sdk/ops': ['sdk/graph', 'sdk/quant'],
  'sdk/quant': ['sdk/graph'],
  'sdk/formats': ['sdk/quant'],
  'sdk/text': [],
  'sdk/hub': ['sdk/formats'],
  'sdk/data': ['sdk/hub', 'sdk/text', 'sdk/formats', 'sdk/quant'],
  'sdk/rewards': ['sdk/eval', 'sdk/text'],
  'sdk/model': ['sdk/ops', 'sdk/graph', 'sdk/quant', 'sdk/formats', 'sdk/target.ts'],
  'sdk/generate': ['sdk/model', 'sdk/ops', 'sdk/graph', 'sdk/data', 'sdk/text', 'sdk/formats', 'sdk/target.ts'],
  'sdk/serve': ['sdk/generate', 'sdk/model'],
  'sdk/train': [
    'sdk/generate',
    'sdk/model',
    'sdk/ops',
    'sdk/graph',
    'sdk/data',
    'sdk/text',
    'sdk/formats',
    'sdk/rewards',
    'sdk/target.ts',
  ],
  'sdk/eval': ['sdk/generate', 'sdk/model', 'sdk/data', 'sdk/text', 'sdk/formats', 'sdk/rewards', 'sdk/target.ts'],
  'sdk/device.ts': ['targets', 'sdk/target.ts', 'sdk/speed.ts', 'sdk/self-test.ts'],
  'sdk/self-test.ts': ['sdk/graph', 'sdk/ops', 'sdk/quant', 'sdk/target.ts'],
  'sdk/speed.ts': ['sdk/graph', 'sdk/ops', 'sdk/target.ts'],
  'sdk/load.ts': ['sdk/hub', 'sdk/device.ts', 'sdk/generate', 'sdk/model', 'sdk/text', 'sdk/formats', 'sdk/target.ts'],
  'sdk/quantize.ts': ['sdk/hub', 'sdk/model', 'sdk/formats', 'sdk/quant', 'sdk/text'],
  'sdk/cli': [
    'sdk/serve',
    'sdk/quantize.ts',
    'sdk/hub',
    'sdk/index.ts',
    'sdk/rewards',
    'sdk/load.ts',
    'sdk/device.ts',
    'sdk/train',
    'sdk/generate',
    'sdk/eval',
    'sdk/data',
    'sdk/text',
    'sdk/model',
    'sdk/formats',
    'sdk/target.ts',
    'sdk/graph',
  ],
  'sdk/index.ts': [
    'sdk/speed.ts',
    'sdk/quantize.ts',
    'sdk/hub',
    'sdk/load.ts',
    'sdk/device.ts',
    'sdk/train',
    'sdk/generate',
    'sdk/eval',
    'sdk/data',
    'sdk/text',
    'sdk/model',
    'sdk/formats',
    'sdk/target.ts',
    'sdk/graph',
    'sdk/ops',
    'sdk/rewards',
  ],
  targets: ['sdk/graph', 'sdk/ops', 'sdk/quant', 'sdk/target.ts', 'kernels-as', 'kernels-wgsl'],
  'kernels-as': [],
  'kernels-wgsl': [],
  'sdk/browser': ['sdk/index.ts', 'sdk/data'],
  examples: ['sdk/index.ts', 'sdk/browser'],
}

const room = (file: string): string => {
  const parts = file.split('/')
  return parts[0] === 'sdk' ? parts.slice(0, 2).join('/') : parts[0]
}

function* sources(folder: string): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory() && !['node_modules', 'dist'].includes(entry.name)) yield* sources(path)
    else if (/\.(ts|mjs|js)$/.test(entry.name)) yield path
  }
}

/** Relative imports of a file, as paths from the root. */
function imports(file: string): string[] {
  const text = readFileSync(file, 'utf8').replace(/^\s*(\/\/|\*).*$/gm, '')
  const found = [...text.matchAll(/(?:from|import)\s*\(?\s*['"](\.{1,2}\/[^'"]+)['"]/g)]
  return found.map(([, path]) => relative('.', resolve(dirname(file), path)))
}

describe('imports run downward only', () => {
  for (const top of ['sdk', 'targets', 'kernels-as', 'kernels-wgsl', 'examples'])
    for (const file of sources(top))
      it(file, () => {
        for (const target of imports(file)) {
          const allowed = may[room(file)] ?? []
          const ok = leaves.includes(target) || room(target) === room(file) || allowed.includes(room(target))
          expect(ok, `${file} imports ${target}`).toBe(true)
          if (leaves.includes(file)) expect(leaves, `${file} is a leaf`).toContain(target)
        }
      })

  it('only device.ts imports targets', () => {
    const importers = [...sources('sdk')].filter((file) => imports(file).some((path) => path.startsWith('targets/')))
    expect(importers.filter((file) => file !== 'sdk/device.ts')).toEqual([])
  })
})
