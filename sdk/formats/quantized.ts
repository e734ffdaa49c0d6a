import { FormatError } from '../errors.ts'
import { isObject } from '../options.ts'
import { awqTensors } from './awq.ts'
import { uncompressed } from './compressed.ts'
import { gptqTensors } from './gptq.ts'
import { mlxTensors } from './mlx.ts'
import type { StoredTensor } from './stored.ts'

/**
 * A model folder's config without its quantization, its tensors with what is in several of them as one tensor of blocks, and what the user
 * should know of it.
 *
 * @throws FormatError for quantizations that are not supported, and for tensors that do not fit
 */
export async function unquantized(
  config: Record<string, unknown>,
  configFile: string,
  tensors: ReadonlyMap<string, StoredTensor>,
): Promise<{ config: Record<string, unknown>; tensors: ReadonlyMap<string, StoredTensor>; warnings: string[] }> {
  const { quantization, quantization_config: other, ...rest } = config
  // mlx_lm writes the same under both names.
  if (isObject(quantization))
    return { config: rest, tensors: mlxTensors(quantization, configFile, tensors), warnings: [] }
  const method = isObject(other) ? other.quant_method : undefined
  if (method === 'awq') return { config: rest, tensors: await awqTensors(other, configFile, tensors), warnings: [] }
  if (method === 'gptq') {
    const found = await gptqTensors(other, configFile, tensors)
    const rounded = [...found.values()].filter(({ dtype }) => dtype === 'Q8_0').length
    const warning = `${configFile}: quantized with act-order (desc_act): ${rounded} matrices are rounded to q8, 8.5 bits a weight in place of 5 (a file without act-order stays as it is)`
    return { config: rest, tensors: found, warnings: rounded > 0 ? [warning] : [] }
  }
  const packed = [...tensors.keys()].find((name) => name.endsWith('.qweight'))
  if (packed !== undefined && !other)
    throw new FormatError(
      `${configFile}: has no quantization_config, and there is ${packed} (older files have it in quantize_config.json: put that here)`,
    )
  return { ...uncompressed(config, configFile, tensors), warnings: [] }
}
