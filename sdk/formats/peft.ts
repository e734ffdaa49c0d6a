import { bytesOf } from '../bytes.ts'
import { FormatError } from '../errors.ts'
import { isObject } from '../options.ts'
import { join } from '../store/path.ts'
import type { Source } from '../store/store.ts'
import { opened, readJson, textChunks } from '../store/text.ts'
import { z } from '../zod.ts'
import type { LoraConfig } from './lora-config.ts'
import { openSafetensors, safetensorsChunks } from './safetensors.ts'
import { readFloats } from './stored.ts'

/** A tensor of adapter_model.safetensors, row-major. */
export interface PeftTensor {
  readonly shape: readonly number[]
  readonly data: Float32Array
}

export interface PeftAdapter {
  readonly config: LoraConfig
  /** By PEFT's keys, `base_model.model.<path>.lora_A.weight`. */
  readonly tensors: ReadonlyMap<string, PeftTensor>
}

const rank = z.number().int().positive().max(65_536)
const names = z.array(z.string())
const namesOrPattern = z.union([z.string(), names])

/** The fields that we compute with; the defaults are PEFT's. */
const schema = z.looseObject({
  peft_type: z.string(),
  task_type: z.string().nullish(),
  base_model_name_or_path: z.string().nullish(),
  r: rank.default(8),
  lora_alpha: z.number().default(8),
  lora_dropout: z.number().min(0).lt(1).default(0),
  use_rslora: z.boolean().nullish(),
  use_dora: z.boolean().nullish(),
  target_modules: namesOrPattern,
  exclude_modules: namesOrPattern.nullish(),
  layers_to_transform: z.union([z.number().int(), z.array(z.number().int())]).nullish(),
  layers_pattern: namesOrPattern.nullish(),
  rank_pattern: z.record(z.string(), rank).nullish(),
  alpha_pattern: z.record(z.string(), z.number()).nullish(),
  modules_to_save: names.nullish(),
  bias: z.string().default('none'),
  init_lora_weights: z.union([z.boolean(), z.string()]).default(true),
})

/** Fields that say where the adapter comes from, or matter only while it is initialized. */
const inert = new Set([
  'auto_mapping',
  'corda_config',
  'eva_config',
  'inference_mode',
  'loftq_config',
  'lora_ga_config',
  'megatron_core',
  'parent_library',
  'peft_version',
  'qalora_group_size',
  'revision',
  'runtime_config',
])

/** Initializations that leave the base weights as they are; the others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) subtract from them. */
const plainInitializations: readonly (string | boolean)[] = [true, false, 'gaussian', 'orthogonal', 'eva']

/**
 * Reads adapter_config.json.
 *
 * @param file named in errors
 * @throws FormatError naming the field: of the wrong type, or set to something that changes the mathematics in a way that we do
 *   not compute. Unknown fields are refused too, unless they are null, false, zero or empty.
 */
export function parseAdapterConfig(json: unknown, file: string): LoraConfig {
  if (isObject(json) && json.fine_tune_type !== undefined && json.peft_type === undefined)
    throw new FormatError(
      `${file}: an adapter of mlx-lm, not of PEFT: fuse it into its model (mlx_lm.fuse --save-path), which can be loaded`,
    )
  const parsed = schema.safeParse(json)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw new FormatError(`${file}: ${issue.path.join('.') || 'adapter config'}: ${issue.message}`)
  }
  const c = parsed.data
  const refuse = (key: string, remedy = 'Halfling computes LoRA, rsLoRA and DoRA'): never => {
    const value = JSON.stringify(c[key])
    throw new FormatError(
      `${file}: ${key} ${value.length > 60 ? `${value.slice(0, 60)}...` : value} is not supported (${remedy})`,
    )
  }
  if (c.peft_type !== 'LORA') refuse('peft_type')
  if (c.task_type && c.task_type !== 'CAUSAL_LM') refuse('task_type', 'only CAUSAL_LM is')
  if (c.bias !== 'none') refuse('bias', 'train it with bias "none"')
  if (!plainInitializations.includes(c.init_lora_weights))
    refuse(
      'init_lora_weights',
      'it changes the base weights: convert it with path_initial_model_for_weight_conversion of save_pretrained',
    )
  for (const [key, value] of Object.entries(c))
    if (!(key in schema.shape) && !inert.has(key) && !isUnset(value)) refuse(key)
  const list = <T>(value: T | T[] | null | undefined): T[] | undefined =>
    value === null || value === undefined ? undefined : ([value].flat() as T[])
  const layers = list(c.layers_to_transform)
  const patterns = list(c.layers_pattern)
  if (typeof c.target_modules === 'string' && (layers || patterns))
    refuse(layers ? 'layers_to_transform' : 'layers_pattern', 'it needs target_modules to be a list')
  return {
    r: c.r,
    loraAlpha: c.lora_alpha,
    loraDropout: c.lora_dropout,
    useRslora: c.use_rslora ?? false,
    useDora: c.use_dora ?? false,
    targetModules: c.target_modules,
    ...(c.exclude_modules && c.exclude_modules.length > 0 && { excludeModules: c.exclude_modules }),
    ...(layers && layers.length > 0 && { layersToTransform: layers }),
    ...(patterns && patterns.length > 0 && { layersPattern: patterns }),
    rankPattern: c.rank_pattern ?? {},
    alphaPattern: c.alpha_pattern ?? {},
    modulesToSave: c.modules_to_save ?? [],
    ...(c.base_model_name_or_path && { baseModel: c.base_model_name_or_path }),
  }
}

const isUnset = (value: unknown): boolean =>
  value === null ||
  value === undefined ||
  value === false ||
  value === 0 ||
  value === '' ||
  (typeof value === 'object' && Object.keys(value).length === 0)

/** The fields that PEFT 0.21 writes to adapter_config.json, in its order. */
export function adapterConfigJson(c: LoraConfig): Record<string, unknown> {
  return {
    alora_invocation_tokens: null,
    alpha_pattern: c.alphaPattern,
    arrow_config: null,
    auto_mapping: null,
    base_model_name_or_path: c.baseModel ?? null,
    bias: 'none',
    corda_config: null,
    ensure_weight_tying: false,
    eva_config: null,
    exclude_modules: c.excludeModules ?? null,
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    kasa_config: null,
    layer_replication: null,
    layers_pattern: c.layersPattern ?? null,
    layers_to_transform: c.layersToTransform ?? null,
    loftq_config: {},
    lora_alpha: c.loraAlpha,
    lora_bias: false,
    lora_dropout: c.loraDropout,
    lora_ga_config: null,
    megatron_config: null,
    megatron_core: 'megatron.core',
    modules_to_save: c.modulesToSave.length > 0 ? c.modulesToSave : null,
    monteclora_config: null,
    peft_type: 'LORA',
    peft_version: '0.21.2',
    qalora_group_size: 16,
    r: c.r,
    rank_pattern: c.rankPattern,
    revision: null,
    target_modules: c.targetModules,
    target_parameters: null,
    task_type: 'CAUSAL_LM',
    trainable_token_indices: null,
    use_bdlora: null,
    use_dora: c.useDora,
    use_qalora: false,
    use_rslora: c.useRslora,
    velora_config: null,
  }
}

const configName = 'adapter_config.json'
const tensorsName = 'adapter_model.safetensors'

/**
 * Reads a folder that PEFT's or our own save wrote: adapter_config.json and adapter_model.safetensors.
 *
 * @throws FormatError naming file and field or tensor
 */
export async function readAdapter(source: Source): Promise<PeftAdapter> {
  const configFile = join(source.name, configName)
  const json = await readJson(source, configName)
  if (!json)
    throw new FormatError(`${configFile}: no such file (an adapter is a folder as PEFT's save_pretrained writes it)`)
  const config = parseAdapterConfig(json, configFile)
  if (!(await source.open(tensorsName)) && (await source.open('adapter_model.bin')))
    throw new FormatError(
      `${source.name}: adapter_model.bin is a pickle and is not read: load it with PEFT and save it again (safe_serialization=True)`,
    )
  const file = await openSafetensors(await opened(source, tensorsName))
  const tensors = new Map<string, PeftTensor>()
  for (const [name, tensor] of file.tensors) tensors.set(name, { shape: tensor.shape, data: await readFloats(tensor) })
  return { config, tensors }
}

/** The files of an adapter as PEFT has them, by name, in pieces. */
export function adapterFiles(
  config: LoraConfig,
  tensors: ReadonlyMap<string, PeftTensor>,
): Map<string, readonly Uint8Array[]> {
  const stored = [...tensors].map(([name, { shape, data }]) => ({
    name,
    dtype: 'F32' as const,
    shape,
    data: bytesOf(data),
  }))
  return new Map([
    [tensorsName, safetensorsChunks(stored, { format: 'pt' })],
    [configName, textChunks(JSON.stringify(adapterConfigJson(config), null, 2))],
  ])
}
