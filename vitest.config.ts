import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // WebGPU in software beside other tests takes its time.
    testTimeout: 400_000,
    hookTimeout: 120_000,
    // Two cores: a test file may itself start compute threads.
    maxWorkers: 2,
  },
})
