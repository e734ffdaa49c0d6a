import { OptionError } from '../errors.ts'
import { join } from '../formats/file-system.ts'
import { openFile, writeAtomically } from '../formats/node-file.ts'
import { readAdapter, writeAdapterFiles } from '../formats/peft.ts'
import { openSafetensors, writeSafetensors } from '../formats/safetensors.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import type { LoraConfig } from '../model/adapter.ts'
import { adapterFromPeft, adapterToPeft, createAdapter } from '../model/lora.ts'

/** Name of the adapter that a trainer makes when none is active. */
const newAdapter = 'default'

/**
 * Decides what trains: a new adapter (config given), the last active one (config left out), or the model itself (null).
 * Returns the adapter's name, or null for the full model.
 */
export async function prepareAdapter(
  lm: LanguageModel,
  peft: Partial<LoraConfig> | null | undefined,
  seed: number,
): Promise<string | null> {
  const { model } = lm
  if (peft === null) {
    if (model.activeAdapters.length > 0)
      throw new OptionError('full fine-tuning with an active adapter: merge it or disable it first')
    return null
  }
  const active = model.activeAdapters.at(-1)
  if (peft === undefined && active !== undefined) return active
  let name = newAdapter
  for (let n = 2; model.adapters.has(name); n++) name = `${newAdapter}-${n}`
  model.adapters.set(name, await createAdapter(name, peft ?? {}, model, seed))
  await model.setAdapters([...model.activeAdapters, name])
  return name
}

/**
 * The adapters as they are now. What it gives puts them back: a run that fails or is cut off leaves none of its numbers in the
 * model, so that going on from its checkpoint does not come on top of them.
 */
export async function rememberAdapters({ model }: LanguageModel): Promise<() => Promise<void>> {
  await model.pullAdapters()
  const [active, adapters] = [model.activeAdapters, new Map(model.adapters)]
  return async () => {
    for (const name of active) await model.replaceAdapter(adapters.get(name)!)
    await model.setAdapters(active)
    for (const name of model.adapters.keys()) if (!adapters.has(name)) model.adapters.delete(name)
  }
}

/** Writes what trains into a folder: a PEFT adapter, or the full model as an HF snapshot. */
export async function saveTrained(lm: LanguageModel, adapter: string | null, folder: string): Promise<void> {
  if (adapter !== null) {
    await lm.model.pullAdapters()
    const { config, tensors } = adapterToPeft(lm.model.adapters.get(adapter)!, lm.model.config)
    await writeAdapterFiles(folder, config, tensors)
    return
  }
  const tensors = []
  for (const [name, type] of lm.model.weights)
    if (!name.startsWith('rope/'))
      tensors.push({
        name,
        dtype: 'F32',
        shape: [...type.shape],
        data: new Uint8Array((await lm.model.readFloats(name)).buffer),
      } as const)
  await writeSafetensors(join(folder, 'model.safetensors'), tensors, { format: 'pt' })
  for (const [file, text] of lm.configFiles({ dtype: 'float32' }))
    await writeAtomically(join(folder, file), [new TextEncoder().encode(text)])
}

/** Puts what a checkpoint holds back onto the target. */
export async function restoreTrained(lm: LanguageModel, adapter: string | null, folder: string): Promise<void> {
  const { model } = lm
  if (adapter !== null) {
    const { config, tensors } = await readAdapter(folder)
    await model.replaceAdapter(adapterFromPeft(adapter, config, tensors, model.config, folder))
    return
  }
  const source = await openFile(join(folder, 'model.safetensors'))
  try {
    const file = await openSafetensors(source)
    for (const [name, type] of model.weights)
      if (!name.startsWith('rope/'))
        await model.target.write(model.buffer(name, type), await file.tensors.get(name)!.read())
    model.numbersVersion++
  } finally {
    await source.close()
  }
}
