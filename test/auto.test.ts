import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { openTarget } from '../sdk/device.ts'
import { DeviceError, OptionError } from '../sdk/errors.ts'
import { onnxTarget } from '../targets/onnx/index.ts'
import { lowering } from '../targets/onnx/lower/index.ts'
import { Ort } from '../targets/onnx/ort/api.ts'

describe('the device auto', () => {
  let home: string
  beforeEach(() => {
    home = mkdtempSync(join(tmpdir(), 'halfling-auto-'))
    vi.stubEnv('HALFLING_DEVICE', 'auto')
    vi.stubEnv('HF_HOME', home)
    vi.stubEnv('HF_HUB_CACHE', undefined)
  })
  afterEach(() => vi.unstubAllEnvs())
  const speeds = () => join(home, 'halfling', 'speeds.json')
  const known = (): Record<string, number> => JSON.parse(readFileSync(speeds(), 'utf8'))
  const taken = async (workload?: 'decoding' | 'training') => {
    const target = await openTarget({ threads: 1, workload })
    await target.close()
    return target.name
  }

  it('is the faster of cpu and wasm, by what was measured once for the workload', async () => {
    const first = await taken()
    const of = (name: string) => Object.keys(known()).find((key) => key.startsWith(name))!
    expect(Object.keys(known())).toHaveLength(2)
    expect(of('cpu')).toMatch(/^cpu, onnxruntime .*, 1 threads, Node v.*, decoding$/)
    expect(of('wasm')).toMatch(/decoding$/)
    expect(known()[of(first)]).toBeGreaterThan(known()[of(first === 'cpu' ? 'wasm' : 'cpu')])
    for (const faster of ['cpu', 'wasm']) {
      const given = Object.fromEntries(Object.keys(known()).map((key) => [key, key.startsWith(faster) ? 2 : 1]))
      writeFileSync(speeds(), JSON.stringify(given))
      expect(await taken()).toBe(faster)
      expect(known()).toEqual(given)
    }
  })

  it('is wasm without the packages, and nothing is measured', async () => {
    vi.stubEnv('HALFLING_ONNXRUNTIME', join(home, 'nowhere'))
    expect(await taken('training')).toBe('wasm')
    expect(() => known()).toThrow(/ENOENT/)
  })

  it('takes no library that is newer than any that was tried and computes wrongly', async () => {
    const isUntested = vi.spyOn(Ort.prototype, 'isUntested', 'get').mockReturnValue(true)
    const target = await onnxTarget({ threads: 1 })
    expect(target.info.features).toEqual(['untested version'])
    await target.close()
    const wrong = vi.spyOn(lowering, 'exp').mockImplementation((g, { inputs: [x] }) => [g.node('Neg', [x.value])])
    await expect(openTarget({ device: 'cpu', threads: 1 })).rejects.toThrow(DeviceError)
    await expect(openTarget({ device: 'cpu', threads: 1 })).rejects.toThrow(/computes 1 operations wrongly \(exp: /)
    expect(await taken()).toBe('wasm')
    for (const spy of [isUntested, wrong]) spy.mockRestore()
  })

  it('knows three workloads', async () => {
    await expect(openTarget({ workload: 'chess' as never })).rejects.toThrow(OptionError)
  })
})
