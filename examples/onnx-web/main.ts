import { Tokenizer } from '@huggingface/tokenizers'
import { generate, openModel } from './generate.ts'

// The folder that `halfling export` wrote: public/model.
const json = async (file: string) => (await fetch(`./model/${file}`)).json()
const [tokenizerJson, tokenizerConfig, config] = await Promise.all(
  ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json'].map(json),
)
const tokenizer = new Tokenizer(tokenizerJson, tokenizerConfig)
const model = await openModel('./model/onnx/model_q4.onnx')

const [form, answer] = ['form', 'output'].map((name) => document.querySelector(name)!)
form.addEventListener('submit', async (event) => {
  event.preventDefault()
  const text = String(new FormData(form as HTMLFormElement).get('text'))
  const ids: number[] = []
  answer.textContent = text
  for await (const id of generate(model, tokenizer.encode(text).ids, [config.eos_token_id].flat(), 128)) {
    ids.push(id)
    answer.textContent = text + tokenizer.decode(ids, { skip_special_tokens: true })
  }
})
form.querySelector('button')!.disabled = false
