import { expect, it } from 'vitest'
import { measureWorkload } from '../sdk/speed.ts'
import { wasmTarget } from '../targets/wasm/index.ts'

it('a measured model has no two equal matrices: onnxruntime would pack one for both, and caches hold it', async () => {
  const target = await wasmTarget({ threads: 1 })
  const write = target.write.bind(target)
  const matrices: string[] = []
  target.write = (buffer, data, ...rest) => {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    if (buffer.type.dtype === 'q4') matrices.push(`${buffer.type.shape} ${bytes.slice(-4)}`)
    return write(buffer, data, ...rest)
  }
  expect(await measureWorkload(target, 'decoding')).toBeGreaterThan(0)
  await target.close()
  expect(matrices).toHaveLength(8 * 7)
  expect(new Set(matrices).size).toBe(matrices.length)
})
