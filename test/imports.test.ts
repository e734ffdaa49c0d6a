import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

// Who may import whom (docs/tour.md). A room may always import itself and the leaves.
const leaves = [
  'sdk/errors.ts',
  'sdk/bytes.ts',
  'sdk/hash.ts',
  'sdk/blocks.ts',
  'sdk/log-zero.ts',
  'sdk/dtype.ts',
  'sdk/random.ts',
  'sdk/pattern.ts',
  'sdk/options.ts',
  'sdk/option-table.ts',
  'sdk/nearest.ts',
  'sdk/runtime.ts',
  'sdk/thread.ts',
  'sdk/same-settings.ts',
  'sdk/zod.ts',
  'sdk/turn.ts',
]
const may: Record<string, string[]> = {
  'sdk/graph': [],
  'sdk/target.ts': ['sdk/graph'],
  'sdk/ops': ['sdk/graph', 'sdk/quant'],
  'sdk/quant': ['sdk/graph'],
  'sdk/store': [],
  'sdk/formats': ['sdk/quant', 'sdk/store'],
  'sdk/text': [],
  'sdk/hub': ['sdk/formats', 'sdk/store'],
  'sdk/data': ['sdk/hub', 'sdk/text', 'sdk/formats', 'sdk/store', 'sdk/quant'],
  'sdk/answers': [],
  'sdk/rewards': ['sdk/answers', 'sdk/text'],
  'sdk/model': ['sdk/ops', 'sdk/graph', 'sdk/quant', 'sdk/text', 'sdk/formats', 'sdk/store', 'sdk/target.ts'],
  'sdk/generate': [
    'sdk/model',
    'sdk/ops',
    'sdk/graph',
    'sdk/quant',
    'sdk/data',
    'sdk/text',
    'sdk/formats',
    'sdk/store',
    'sdk/target.ts',
  ],
  'sdk/serve': ['sdk/generate', 'sdk/model'],
  'sdk/train': [
    'sdk/generate',
    'sdk/model',
    'sdk/ops',
    'sdk/graph',
    'sdk/data',
    'sdk/text',
    'sdk/formats',
    'sdk/store',
    'sdk/rewards',
    'sdk/target.ts',
  ],
  'sdk/eval': [
    'sdk/answers',
    'sdk/generate',
    'sdk/model',
    'sdk/data',
    'sdk/text',
    'sdk/formats',
    'sdk/store',
    'sdk/target.ts',
  ],
  'sdk/device.ts': ['targets', 'sdk/target.ts', 'sdk/device-here.ts'],
  'sdk/device-here.ts': ['targets', 'sdk/target.ts', 'sdk/speed.ts', 'sdk/self-test.ts', 'sdk/calibration.ts'],
  'sdk/calibration.ts': ['sdk/hub', 'sdk/store', 'sdk/speed.ts', 'sdk/target.ts'],
  'sdk/device-worker.ts': ['targets', 'sdk/device-here.ts'],
  'sdk/self-test.ts': ['sdk/graph', 'sdk/ops', 'sdk/quant', 'sdk/target.ts'],
  'sdk/speed.ts': ['sdk/graph', 'sdk/ops', 'sdk/model', 'sdk/target.ts'],
  'sdk/load.ts': [
    'sdk/hub',
    'sdk/device.ts',
    'sdk/generate',
    'sdk/model',
    'sdk/text',
    'sdk/formats',
    'sdk/store',
    'sdk/target.ts',
  ],
  'sdk/quantize.ts': [
    'sdk/hub',
    'sdk/device.ts',
    'sdk/generate',
    'sdk/model',
    'sdk/data',
    'sdk/text',
    'sdk/formats',
    'sdk/quant',
    'sdk/store',
  ],
  'sdk/export': ['targets', 'sdk/hub', 'sdk/formats', 'sdk/model', 'sdk/store'],
  'sdk/cli': [
    'sdk/export',
    'sdk/serve',
    'sdk/quantize.ts',
    'sdk/speed.ts',
    'sdk/hub',
    'sdk/index.ts',
    'sdk/rewards',
    'sdk/load.ts',
    'sdk/speed.ts',
    'sdk/device.ts',
    'sdk/train',
    'sdk/generate',
    'sdk/eval',
    'sdk/answers',
    'sdk/data',
    'sdk/text',
    'sdk/model',
    'sdk/formats',
    'sdk/store',
    'sdk/target.ts',
    'sdk/graph',
  ],
  'sdk/index.ts': [
    'sdk/export',
    'sdk/speed.ts',
    'sdk/quantize.ts',
    'sdk/hub',
    'sdk/load.ts',
    'sdk/device.ts',
    'sdk/train',
    'sdk/generate',
    'sdk/eval',
    'sdk/answers',
    'sdk/data',
    'sdk/text',
    'sdk/model',
    'sdk/formats',
    'sdk/store',
    'sdk/target.ts',
    'sdk/graph',
    'sdk/ops',
    'sdk/rewards',
  ],
  targets: ['sdk/graph', 'sdk/ops', 'sdk/quant', 'sdk/target.ts', 'kernels-as', 'kernels-wgsl'],
  // AssemblyScript writes no endings.
  'kernels-as': ['sdk/blocks', 'sdk/log-zero'],
  'kernels-wgsl': [],
  examples: ['sdk/index.ts'],
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

  it('no two rooms import each other', () => {
    const pairs = Object.entries(may).flatMap(([from, to]) => to.map((other) => [from, other]))
    expect(pairs.filter(([from, to]) => may[to]?.includes(from))).toEqual([])
  })

  it('targets share one queue and one set of checks, and know nothing of each other', () => {
    const shared = [
      'targets/checks.ts',
      'targets/lowering.ts',
      'targets/machine.ts',
      'targets/owned-buffer.ts',
      'targets/queue.ts',
      'targets/queued-target.ts',
      'targets/threads.ts',
    ]
    const folders = new Set(
      [...sources('targets')].filter((file) => !shared.includes(file)).map((file) => file.split('/')[1]),
    )
    expect([...folders].every((folder) => !folder.endsWith('.ts'))).toBe(true)
    for (const folder of folders) {
      const files = [...sources(`targets/${folder}`)]
      const imported = files.flatMap((file) => imports(file).filter((path) => path.startsWith('targets/')))
      for (const path of imported)
        expect([...shared, folder], path).toContain(shared.includes(path) ? path : path.split('/')[1])
      // A target in another thread has its queue there.
      if (folder !== 'remote') expect(imported).toContain('targets/queued-target.ts')
      // Nobody but the shared target checks or queues.
      for (const file of files)
        expect(readFileSync(file, 'utf8'), file).not.toMatch(/checkOps|checkBound|checkRange|new Queue\b/)
    }
  })

  it('only what opens devices and what writes ONNX files imports targets', () => {
    const importers = [...sources('sdk')].filter((file) => imports(file).some((path) => path.startsWith('targets/')))
    expect(importers.sort()).toEqual([
      ...['sdk/device-here.ts', 'sdk/device-worker.ts', 'sdk/device.ts'],
      ...['sdk/export/decoder.ts', 'sdk/export/onnx.ts'],
    ])
  })
})
