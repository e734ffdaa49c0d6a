import { generate, openModel } from '../../examples/onnx-web/generate.ts'

Object.assign(globalThis, {
  async answer(file: string, prompt: number[], count: number) {
    const model = await openModel(file)
    const ids: number[] = []
    for await (const id of generate(model, prompt, [], count)) ids.push(id)
    return ids
  },
})
