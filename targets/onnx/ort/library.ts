import { existsSync, readdirSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { DeviceError } from '../../../sdk/errors.ts'

const names = /^(libonnxruntime\.so(\.[\d.]+)?|libonnxruntime(\.[\d.]+)?\.dylib|onnxruntime\.dll)$/

/**
 * The library of HALFLING_ONNXRUNTIME (a file, or a folder as a Python wheel's `capi`), else of the package onnxruntime-node.
 * Throws DeviceError with what to install.
 */
export function findLibrary(): string {
  const given = process.env.HALFLING_ONNXRUNTIME
  if (given) {
    if (!existsSync(given)) throw new DeviceError(`HALFLING_ONNXRUNTIME is ${given}, which does not exist`)
    return statSync(given).isDirectory() ? inFolder(given) : given
  }
  let entry: string
  try {
    entry = createRequire(import.meta.url).resolve('onnxruntime-node')
  } catch {
    throw new DeviceError('cpu needs the packages onnxruntime-node and koffi: npm install onnxruntime-node koffi')
  }
  return inFolder(join(dirname(entry), '../bin/napi-v6', process.platform, process.arch))
}

function inFolder(folder: string): string {
  const found = existsSync(folder) ? readdirSync(folder).find((name) => names.test(name)) : undefined
  if (!found) throw new DeviceError(`${folder} has no onnxruntime library for ${process.platform} ${process.arch}`)
  return join(folder, found)
}
