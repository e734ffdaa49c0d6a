// Runs in the browser: targets in their Workers, and Workers that fail.

import { openTarget } from '../../sdk/device.ts'
import { ops } from '../../sdk/ops/index.ts'
import { fillCase, runCase } from '../../sdk/self-test.ts'
import type { Target } from '../../sdk/target.ts'
import { remoteTarget } from '../../targets/remote/index.ts'
import { failingCases } from './cases.ts'

const told = (error: { name: string; code: string; message: string }) =>
  `${error.name}, ${error.code}: ${error.message}`

async function cases(device: 'reference' | 'wasm' | 'webgpu') {
  const target = await openTarget({ device })
  const wrong = await failingCases(target)
  await target.close()
  return wrong
}

/** A Worker of a script that is not there. */
const missing = () => remoteTarget(new Worker('/nowhere.js', { type: 'module' })).then(() => 'opened', told)

/** What a target answers whose Worker was ended with `terminate`, which no event tells. */
async function ended() {
  const workers: Worker[] = []
  const { Worker: Plain } = globalThis
  globalThis.Worker = class extends Plain {
    constructor(...args: ConstructorParameters<typeof Plain>) {
      super(...args)
      workers.push(this)
    }
  }
  const target: Target = await openTarget({ device: 'reference' })
  globalThis.Worker = Plain
  const buffer = target.create({ dtype: 'f32', shape: [4] }, 'four')
  await target.write(buffer, new Float32Array(4))
  const waiting = runLong(target)
  workers[0].terminate()
  return [await waiting, await Promise.resolve(target.read(buffer)).then(() => 'read', told)]
}

async function runLong(target: Target): Promise<string> {
  const spec = ops.linear
  try {
    for (;;) await runCase(target, spec, spec.cases[0], fillCase(spec, spec.cases[0]))
  } catch (error) {
    return told(error as never)
  }
}

Object.assign(globalThis, { cases, missing, ended })
