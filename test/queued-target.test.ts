import { expect, it } from 'vitest'
import type { MemoryPlan } from '../sdk/graph/program.ts'
import { type Executor, QueuedTarget } from '../targets/queued-target.ts'

it('a write that goes on has taken its bytes, and what comes next waits for it', async () => {
  const log: string[] = []
  let settle = () => {}
  const executor: Pick<
    Executor<Uint8Array, { memory: MemoryPlan }>,
    'name' | 'info' | 'allocate' | 'release' | 'write' | 'read'
  > = {
    name: 'reference',
    info: { description: '', threads: 1, memoryLimit: 1e9, features: [] },
    allocate: () => new Uint8Array(4),
    release: () => log.push('release'),
    write(memory, byteOffset, bytes) {
      memory.set(bytes, byteOffset)
      log.push('write')
      return new Promise((resolve) => {
        settle = () => {
          log.push('settled')
          resolve()
        }
      })
    },
    read(memory) {
      log.push('read')
      return memory.slice().buffer
    },
  }
  const target = new QueuedTarget(executor as Executor<Uint8Array, { memory: MemoryPlan }>)
  const type = { dtype: 'f32', shape: [1] } as const
  const [buffer, other] = [target.create(type, 'x'), target.create(type, 'y')]
  const data = Float32Array.of(2)
  void target.write(buffer, data)
  data[0] = 3
  const read = target.read(buffer)
  target.free(other)
  await new Promise((resolve) => setTimeout(resolve))
  expect(log).toEqual(['write'])
  settle()
  expect([...new Float32Array(await read)]).toEqual([2])
  await new Promise((resolve) => setTimeout(resolve))
  expect(log).toEqual(['write', 'settled', 'read', 'release'])
})
