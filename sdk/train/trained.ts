import { NumericError, OptionError } from '../errors.ts'
import { readAdapter } from '../formats/peft.ts'
import { openTensors } from '../formats/stored-model.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import type { Adapter, LoraConfig } from '../model/adapter.ts'
import { adapterFromPeft, createAdapter } from '../model/lora.ts'
import { checkTrainable } from '../model/lora-targets.ts'
import { snapshotFiles } from '../model/write.ts'
import type { Files, Source } from '../store/store.ts'

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
  if (peft === undefined && active !== undefined) {
    checkTrainable(model.adapters.get(active)!.modules.keys())
    return active
  }
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

/** The files of what trains: a PEFT adapter's, or the full model's as an HF snapshot in f32. Throws NumericError, FormatError for what is not finite. */
export async function trainedFiles(lm: LanguageModel, adapter: string | null): Promise<Files> {
  if (adapter === null) return snapshotFiles(await lm.mergedModel(), { dtype: 'f32' })
  const files = await lm.peftFiles(adapter)
  checkFinite(lm.model.adapters.get(adapter)!)
  return files
}

/** Throws NumericError for an adapter that is as it was made: B is zero everywhere, and nothing else trains. */
export function checkTrained({ model }: LanguageModel, name: string | null): void {
  if (name === null) return
  const { modules, saved } = model.adapters.get(name)!
  if (saved.size > 0 || [...modules.values()].some(({ b }) => b.some((value) => value !== 0))) return
  throw new NumericError(
    `adapter "${name}": no step has changed it, B is still zero: it is not written (was the learningRate 0, or every gradient, as where no group of completions has any spread of rewards?)`,
  )
}

/** Throws NumericError naming what is not finite. */
function checkFinite({ name, modules, saved }: Adapter): void {
  const all = [...modules].flatMap(([path, { a, b, magnitude = a }]) =>
    [a, b, magnitude].map((data) => [path, data] as const),
  )
  const wrong = [...all, ...saved].find(([, data]) => !data.every(Number.isFinite))
  if (wrong)
    throw new NumericError(
      `adapter "${name}": ${wrong[0]} has values that are not finite: it is not written (lower the learning rate)`,
    )
}

/** Puts what a checkpoint holds back onto the target. */
export async function restoreTrained(lm: LanguageModel, adapter: string | null, folder: Source): Promise<void> {
  const { model } = lm
  if (adapter !== null) {
    const { config, tensors } = await readAdapter(folder)
    await model.replaceAdapter(adapterFromPeft(adapter, config, tensors, model.config, folder.name))
    return
  }
  const { tensors } = await openTensors(folder)
  for (const [name, type] of model.weights)
    await model.target.write(model.buffer(name, type), await tensors.get(name)!.read())
  model.numbersVersion++
}
