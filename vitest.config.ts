import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** Minutes each; begun last, one of them would keep the others' worker waiting. */
const slow = [
  'browser/page',
  'webgpu/lost',
  'browser/train',
  'examples/examples',
  'golden/grpo',
  'docs/code-blocks',
  'trust/corruption',
]

class SlowFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const isSlow = ({ moduleId }: TestSpecification) => slow.some((name) => moduleId.endsWith(`${name}.test.ts`))
    const sorted = await super.sort(files)
    return [...sorted.filter(isSlow), ...sorted.filter((file) => !isSlow(file))]
  }
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // WebGPU in software beside other tests takes its time.
    testTimeout: 400_000,
    hookTimeout: 120_000,
    // More files than cores, since those of browsers wait; threads of one that wait for each other would only take turns.
    maxWorkers: 3,
    // What `auto` takes depends on the machine.
    env: { HALFLING_THREADS: '1', HALFLING_DEVICE: 'wasm' },
    sequence: { sequencer: SlowFirst },
  },
})
