// Runs in the browser: nano from a server, or from files that the page was given.
import { fileFolder, LanguageModel, loadModel, urlFolder } from '../../sdk/index.ts'

const files = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'model.safetensors',
  'chat_template.jinja',
]

async function answer(
  question: string,
  how: 'url' | 'files',
): Promise<{ text: string; tokenIds: number[]; device: string }> {
  const base = new URL('nano/', location.href)
  const given: File[] = []
  if (how === 'files')
    for (const name of files) {
      const found = await fetch(new URL(name, base))
      if (found.ok) given.push(new File([await found.blob()], name))
    }
  const lm = await loadModel(how === 'url' ? urlFolder(base) : fileFolder(given), { device: 'webgpu' })
  const options = { maxNewTokens: 64, temperature: 0 }
  const { text, tokenIds } = await LanguageModel.complete(lm.chat([{ role: 'user', content: question }], options))
  const device = lm.model.target.info.description
  await lm.close()
  return { text, tokenIds, device }
}

Object.assign(globalThis, { answer })
