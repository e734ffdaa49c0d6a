import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { constants, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { brotliDecompressSync } from 'node:zlib'

// SwiftShader, Vulkan in software, out of @sparticuz/chromium: a WebGPU adapter wherever Node runs on Linux x64.

/** RTLD_NODELETE of Linux: what was loaded stays. */
const noDelete = 0x1000

/**
 * Makes Vulkan find it from now on, or says why it cannot. HALFLING_VULKAN_ICD names another driver: the tests run on lavapipe with
 * /usr/share/vulkan/icd.d/lvp_icd.json of Debian's mesa-vulkan-drivers 25.
 */
export function useSwiftShader(): string | undefined {
  const other = process.env.HALFLING_VULKAN_ICD
  if (other) {
    process.env.VK_ICD_FILENAMES = process.env.VK_DRIVER_FILES = other
    return undefined
  }
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'SwiftShader comes for Linux x64 only'
  try {
    const folder = unpack()
    process.env.VK_ICD_FILENAMES = join(folder, 'vk_swiftshader_icd.json')
    process.env.VK_DRIVER_FILES = process.env.VK_ICD_FILENAMES
    try {
      // No module, so it throws, but the library stays loaded: Dawn then finds it by its name.
      process.dlopen({ exports: {} }, join(folder, 'libvulkan.so.1'), constants.dlopen.RTLD_NOW | noDelete)
    } catch {}
    return undefined
  } catch (error) {
    return `no SwiftShader: ${(error as Error).message}`
  }
}

/** Headless Chromium of the same package, beside SwiftShader, where it looks for it. Unpacked once, by one of several processes. */
export function chromiumPath(): string {
  const path = join(unpack(), 'chromium')
  if (existsSync(path)) return path
  const beside = `${path}.${randomUUID()}`
  writeFileSync(beside, brotliDecompressSync(readFileSync(join(packageRoot(), 'bin/chromium.br'))), { mode: 0o755 })
  renameSync(beside, path)
  return path
}

function packageRoot(): string {
  const main = createRequire(import.meta.url).resolve('@sparticuz/chromium')
  let root = dirname(main)
  while (!existsSync(join(root, 'bin/swiftshader.tar.br'))) {
    if (root === dirname(root)) throw new Error('@sparticuz/chromium has no bin/swiftshader.tar.br')
    root = dirname(root)
  }
  return root
}

function unpack(): string {
  const root = packageRoot()
  const version = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version
  const folder = join(tmpdir(), `halfling-swiftshader-${version}`)
  if (existsSync(folder)) return folder
  const beside = `${folder}.${randomUUID()}`
  mkdirSync(beside, { recursive: true })
  const tar = brotliDecompressSync(readFileSync(join(root, 'bin/swiftshader.tar.br')))
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0; ) {
    const name = tar.toString('utf8', at, at + 100).replace(/\0.*/, '')
    const size = Number.parseInt(tar.toString('utf8', at + 124, at + 136), 8)
    if (/\.(so(\.1)?|json)$/.test(name))
      writeFileSync(join(beside, name.replace(/^.*\//, '')), tar.subarray(at + 512, at + 512 + size), { mode: 0o755 })
    at += 512 + Math.ceil(size / 512) * 512
  }
  try {
    renameSync(beside, folder)
  } catch {
    rmSync(beside, { recursive: true, force: true })
  }
  return folder
}
