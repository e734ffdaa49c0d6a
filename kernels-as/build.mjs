// Compiles kernels-as/index.ts four times: kernels.wasm (threads, shared memory) and kernels-single.wasm (neither), each without and
// with relaxed SIMD, which not every engine has.
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
  '--maximumMemory',
  '65536',
  '--enable',
  'simd',
]
const builds = {
  kernels: ['--enable', 'threads', '--sharedMemory'],
  'kernels-single': ['--disable', 'threads'],
}

await mkdir(`${folder}dist`, { recursive: true })
const all = Object.entries(builds).flatMap(([name, flags]) => [
  [`${name}.wasm`, flags],
  [`${name}-relaxed.wasm`, [...flags, '--enable', 'relaxed-simd']],
])
for (const [name, flags] of all) {
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
