// Compiles kernels-as/index.ts twice: kernels.wasm (threads, shared memory) and kernels-single.wasm (neither).
// Each is written beside and renamed, so a failed or concurrent build never leaves half a file.
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import asc from 'assemblyscript/asc'

const folder = fileURLToPath(new URL('.', import.meta.url))
const common = [
  'index.ts',
  '--baseDir',
  folder,
  '-O3',
  '--runtime',
  'stub',
  '--noAssert',
  '--importMemory',
  '--initialMemory',
  '16',
]
const builds = {
  'kernels.wasm': ['--enable', 'simd,threads', '--sharedMemory', '--maximumMemory', '65536'],
  'kernels-single.wasm': ['--enable', 'simd', '--disable', 'threads', '--maximumMemory', '65536'],
}

await mkdir(`${folder}dist`, { recursive: true })
for (const [name, flags] of Object.entries(builds)) {
  let bytes
  const { error, stderr, stdout } = await asc.main([...common, ...flags, '--outFile', name], {
    writeFile: (_file, contents) => {
      bytes = contents
    },
  })
  process.stdout.write(stdout.toString())
  process.stderr.write(stderr.toString())
  if (error) throw error
  const temporary = `${folder}dist/${name}.${process.pid}`
  await writeFile(temporary, bytes)
  await rename(temporary, `${folder}dist/${name}`)
}
