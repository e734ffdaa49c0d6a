import { z } from '../zod.ts'
import { type Matrix, nibbles, partsOf, type Tensors, withMatrices } from './columns.ts'
import { checkedSettings, fail, groupSizes, partOf, wordsOf } from './joined.ts'

// GPTQ as AutoGPTQ and GPTQModel write it (auto_gptq/nn_modules/qlinear, gptqmodel/utils/model.py): qweight I32 [I / 8, O], eight inputs in
// a word in their order, from the lowest bits on; qzeros I32 [G, O / 8], eight outputs in theirs; scales F16 [G, O]; g_idx I32 [I], the
// group of each input. The format `gptq` stores zeros less one (0x11111111 is subtracted from the words, so that a zero of 0 borrows),
// `gptq_v2` as they are.

const settings = z.looseObject({
  quant_method: z.literal('gptq'),
  bits: z.literal(4),
  group_size: groupSizes,
  sym: z.boolean().optional(),
  desc_act: z.boolean().optional(),
  checkpoint_format: z.literal(['gptq', 'gptq_v2']).optional(),
  is_marlin_format: z.literal(false).nullish(),
  pack_dtype: z.literal('int32').nullish(),
  // Settings of single modules.
  dynamic: z.strictObject({}).nullish(),
})

/**
 * A folder's tensors with what GPTQ has of each weight as one tensor: of dtype Q4_1, or Q8_0 where groups are out of order (act-order),
 * which q4a cannot hold.
 *
 * @throws FormatError for settings that are not supported, and for tensors that do not fit
 */
export async function gptqTensors(quantization: unknown, configFile: string, tensors: Tensors): Promise<Tensors> {
  const own = checkedSettings(settings, quantization, `${configFile}: quantization_config`)
  const { group_size, sym, desc_act, checkpoint_format = 'gptq' } = own
  return withMatrices(tensors, async (module, qweight) => {
    const [words, outputs] = qweight.shape
    const parts = partsOf(module, qweight, { inputs: 8 * words, outputs, groupSize: group_size }, tensors)
    const { qzeros } = parts
    const zeros = (words: Uint32Array): Uint8Array => {
      if (!sym)
        return nibbles(
          checkpoint_format === 'gptq' ? words.map((word) => word + 0x11111111) : words,
          [0, 1, 2, 3, 4, 5, 6, 7],
        )
      // Symmetric: all zeros are 8. Files exist that have them as gptq_v2 and say gptq.
      if (!words.every((word) => word === words[0]) || (words[0] !== 0x77777777 && words[0] !== 0x88888888))
        fail(qzeros, 'has zeros other than 8, though config.json says sym (does it belong to it?)')
      return new Uint8Array(8 * words.length).fill(8)
    }
    const codes = (words: Uint32Array, output: number, word: number) => words[word * outputs + output]
    const hasGroups = desc_act || tensors.has(`${module}.g_idx`)
    const groups = hasGroups ? await groupsOf(module, parts, tensors) : null
    return { ...parts, codes, zeros, groups }
  })
}

/** The group of each input, or null where they are in order. */
async function groupsOf(
  module: string,
  { qweight, scales, inputs, groupSize }: Pick<Matrix, 'qweight' | 'scales' | 'inputs' | 'groupSize'>,
  tensors: Tensors,
): Promise<Uint32Array | null> {
  const gIdx = partOf(qweight, { name: `${module}.g_idx`, dtypes: ['I32'], shape: [inputs] }, tensors)
  const groups = wordsOf(await gIdx.read())
  const [count] = scales.shape
  const wrong = groups.findIndex((group) => group >= count)
  if (wrong >= 0) fail(gIdx, `number ${wrong} is ${groups[wrong] | 0}, there are ${count} groups`)
  return groups.every((group, i) => group === Math.floor(i / groupSize)) ? null : groups
}
