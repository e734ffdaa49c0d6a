import { copy } from '../../../kernels-wgsl/elementwise.ts'
import * as kernels from '../../../kernels-wgsl/sample.ts'
import { byteLength } from '../../../sdk/dtype.ts'
import { count, direct, each, type Lowering } from './types.ts'

export const sampling = {
  sample: ({ inputs: [logits] }) => ({
    // logits after penalties and edits
    scratchBytes: byteLength(logits),
    calls({ inputs, outputs: [id, logProb, truncatedLogProb], scratch }) {
      const [given, temperature, topK, topP, minP, uniforms, editRow, editId, editBias, penalties, counts] = inputs
      const [n, vocabulary] = logits.shape
      const z = { ...scratch, shape: logits.shape }
      const args = [z, temperature, topK, topP, minP, uniforms, id, logProb, truncatedLogProb]
      return [
        penalties
          ? each(kernels.penalize, count(z), [given, penalties, counts, z], [vocabulary])
          : each(copy, count(z), [given, z]),
        each(kernels.editLogits, n, [z, editRow, editId, editBias], [vocabulary, count(editRow)]),
        { kernel: kernels.sample, args, params: [vocabulary], groups: n },
        ...(counts ? [each(kernels.countDrawn, n, [id, counts], [vocabulary])] : []),
      ]
    },
  }),
  topLogProbs: direct(({ inputs, outputs }) => {
    const [n, vocabulary] = inputs[0].shape
    const params = [vocabulary, outputs[0].shape[1]]
    return [{ kernel: kernels.topLogProbs, args: [...inputs, ...outputs], params, groups: n }]
  }),
  drawTokens: direct(({ inputs, outputs }) => {
    const [n, vocabulary] = inputs[0].shape
    return [each(kernels.drawTokens, n, [...inputs, ...outputs], [vocabulary, outputs[0].shape[1]])]
  }),
} satisfies Partial<Lowering>
