// Runs in the browser: models that come with the page, are downloaded, imported, and kept in the browser's storage.
import { readRows } from '../../sdk/data/rows.ts'
import { walk } from '../../sdk/hub/walk.ts'
import {
  fileFolder,
  importModel,
  LanguageModel,
  listModels,
  loadAdapter,
  loadModel,
  pullModel,
  removeModel,
  SFTTrainer,
} from '../../sdk/index.ts'
import { storeAt } from '../../sdk/store/store.ts'
import { textChunks } from '../../sdk/store/text.ts'

const pull = (name: string): Promise<string> => pullModel(name).catch((error) => `${error.code}: ${error.message}`)

async function answer(name: string | undefined): Promise<number[]> {
  const lm = await loadModel(name, { device: 'webgpu' })
  const question = [{ role: 'user' as const, content: 'What is 2 + 3?' }]
  const { tokenIds } = await LanguageModel.complete(lm.chat(question, { maxNewTokens: 4, temperature: 0 }))
  await lm.close()
  return [...tokenIds]
}

const list = async () => (await listModels()).map(({ name, kind, bytes }) => ({ name, kind, bytes }))

async function given(base: string, names: readonly string[]): Promise<File[]> {
  const blobs = await Promise.all(names.map(async (name) => (await fetch(new URL(name, base))).blob()))
  return names.map((name, i) => new File([blobs[i]], name))
}

async function imported(base: string, names: readonly string[], name: string): Promise<string> {
  return importModel(await given(base, names), name).catch((error) => `${error.code}: ${error.message}`)
}

async function stored(): Promise<string[]> {
  return (await walk(await storeAt('models'))).map(({ name }) => name)
}

/** Sizes of files in an imported folder, which a page may also have from showDirectoryPicker. */
async function picked(name: string, files: readonly string[]): Promise<(number | null)[]> {
  let handle = await navigator.storage.getDirectory()
  for (const part of ['models', 'halfling-imported', name]) handle = await handle.getDirectoryHandle(part)
  const folder = fileFolder(handle)
  return Promise.all(files.map(async (file) => (await folder.open(file))?.size ?? null))
}

/** Of the largest file that is not whole. */
async function partBytes(): Promise<number> {
  const parts = (await walk(await storeAt('models'))).filter(({ name }) => name.endsWith('.incomplete'))
  return Math.max(0, ...parts.map(({ bytes }) => bytes))
}

/** Learns from a dropped file, saves the adapter, and reads it again: its first numbers before and after. */
async function adapterThereAndBack(text: string): Promise<string[]> {
  const file = new File([text], 'rows.jsonl')
  const lm = await loadModel('nano', { device: 'webgpu', dtype: 'f32' })
  const args = { outputDir: null, maxSteps: 1, learningRate: 1e-2, perDeviceTrainBatchSize: 2 }
  for await (const _ of new SFTTrainer({ model: lm, trainDataset: file, peft: { r: 2 }, args }).train());
  await lm.saveAdapter('default', 'adapters/one')
  await loadAdapter(lm, 'adapters/one', 'again')
  const told = []
  for (const name of ['default', 'again'])
    told.push(
      [...new Uint8Array(await (await lm.adapterFiles(name)).get('adapter_model.safetensors')!.arrayBuffer())].join(),
    )
  await lm.close()
  return told
}

async function rowsOf(text: string): Promise<unknown[]> {
  await (await storeAt('rows.jsonl')).append('', textChunks(text))
  const seen = []
  for (const source of ['rows.jsonl', new File([text], 'dropped.jsonl')])
    for await (const { values, place } of readRows(source)) seen.push([place, values])
  const parquet = await readRows(new File(['PAR1'], 'x.parquet'))
    .next()
    .catch((error) => error.message)
  return [...seen, parquet]
}

Object.assign(globalThis, {
  pull,
  picked,
  answer,
  partBytes,
  list,
  imported,
  stored,
  removeModel,
  adapterThereAndBack,
  rowsOf,
})
