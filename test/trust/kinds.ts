import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parquetWriteBuffer } from 'hyparquet-writer'
import { writeTinyModel } from '../../examples/tiny-model.ts'
import { aliases, sftKeys } from '../../sdk/cli/keys.ts'
import { readConfig } from '../../sdk/cli/settings.ts'
import { readRows } from '../../sdk/data/rows.ts'
import { startTeacherCache, TeacherCache, writeTeacherShard } from '../../sdk/data/teacher-cache.ts'
import { rowTokenizer } from '../../sdk/data/tokenize.ts'
import { HalflingError } from '../../sdk/errors.ts'
import { openGguf } from '../../sdk/formats/gguf.ts'
import { ggufModel } from '../../sdk/formats/gguf-model.ts'
import { readAdapter } from '../../sdk/formats/peft.ts'
import { openSafetensors, safetensorsChunks } from '../../sdk/formats/safetensors.ts'
import { readFloats, type StoredTensor } from '../../sdk/formats/stored.ts'
import { openModel, openTensors } from '../../sdk/formats/stored-model.ts'
import { resolveSampling } from '../../sdk/generate/sampling.ts'
import { eosTokenIds } from '../../sdk/load.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { adapterFromPeft } from '../../sdk/model/lora.ts'
import { findWeights } from '../../sdk/model/names.ts'
import { quantizeModel } from '../../sdk/quantize.ts'
import { bytesSource } from '../../sdk/store/byte-source.ts'
import { storeAt } from '../../sdk/store/store.ts'
import { loadChatTemplate, renderChat } from '../../sdk/text/chat-template.ts'
import { checkVocabulary, loadTokenizer } from '../../sdk/text/tokenizer.ts'
import { readState, restoreMoments } from '../../sdk/train/checkpoint.ts'
import type { TrainStep } from '../../sdk/train/step.ts'
import { damageBytes, damageJson, type Random } from './mutations.ts'

// Every kind of file that we open: good ones, small, and what opening them means.

export interface Kind {
  /** Of the mutations; slow kinds get fewer. */
  readonly share: number
  /** Damages a copy and opens it. */
  attempt(random: Random): Promise<void>
  isTyped(error: unknown): boolean
  prepare?(): Promise<void>
  end?(): Promise<void>
}

type Files = Readonly<Record<string, Uint8Array>>

const isTyped = (error: unknown): boolean => error instanceof HalflingError
const text = (value: string): Uint8Array => new TextEncoder().encode(value)

/** A folder with good files; an attempt damages one of `targets` and puts it right again. */
function inFolder(
  share: number,
  make: () => Promise<Files>,
  targets: RegExp,
  open: (folder: string) => Promise<void>,
): Kind {
  let [folder, files, names]: [string, Files, string[]] = ['', {}, []]
  const parsed = new Map<string, unknown>()
  return {
    share,
    isTyped,
    async prepare() {
      files = await make()
      folder = mkdtempSync(join(process.platform === 'linux' ? '/dev/shm' : tmpdir(), 'halfling-corrupt-'))
      for (const [name, bytes] of Object.entries(files)) writeFileSync(join(folder, name), bytes)
      names = Object.keys(files).filter((name) => targets.test(name))
      for (const name of names)
        if (name.endsWith('.json')) parsed.set(name, JSON.parse(Buffer.from(files[name]).toString()))
      await open(folder)
    },
    async attempt(random) {
      const name = names[random(names.length)]
      const path = join(folder, name)
      const good = files[name]
      const bytes =
        random(100) === 0
          ? files[names[random(names.length)]] // another file under this name
          : parsed.has(name) && random(3) > 0
            ? text(damageJson(parsed.get(name), random))
            : damageBytes(good, headerOf(name, good), random)
      writeFileSync(path, bytes)
      try {
        await open(folder)
      } finally {
        writeFileSync(path, good)
      }
    },
    async end() {
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Where a binary file says what is in it. */
const headerOf = (name: string, bytes: Uint8Array): number =>
  /\.(safetensors|gguf)$/.test(name) ? Math.min(bytes.length, 6000) : bytes.length

function inMemory(
  share: number,
  make: () => Promise<Uint8Array>,
  header: number,
  open: (bytes: Uint8Array) => Promise<void>,
): Kind {
  let good = new Uint8Array()
  return {
    share,
    isTyped,
    async prepare() {
      good = new Uint8Array(await make())
      await open(good)
    },
    attempt: (random) => open(damageBytes(good, Math.min(header, good.length), random)),
  }
}

async function readAll(tensors: Iterable<StoredTensor>): Promise<void> {
  for (const tensor of tensors) await (/^(BOOL|[IU]\d+)$/.test(tensor.dtype) ? tensor.read() : readFloats(tensor))
}

function readFolder(folder: string): Files {
  return Object.fromEntries(readdirSync(folder).map((name) => [name, new Uint8Array(readFileSync(join(folder, name)))]))
}

/** With runs on which patterns that repeat repetitions take for ever. */
const hardText = `Hello <|im_start|>it is 42, naïve \n\n${'a'.repeat(60)}!${' '.repeat(60)}x`

/** What loading a model does before any device is opened. */
async function tryModel(path: string): Promise<void> {
  const stored = await openModel(await storeAt(path))
  const config = parseConfig(stored.config, stored.configFile)
  const tokenizer = loadTokenizer(stored.tokenizerJson, stored.tokenizerConfig)
  checkVocabulary(tokenizer, config.vocabSize)
  tokenizer.decode(tokenizer.encode(hardText))
  eosTokenIds(stored.generationConfig, stored.config, tokenizer.eosTokenId, config.vocabSize)
  resolveSampling({}, stored.generationConfig)
  const template = loadChatTemplate(stored.tokenizerConfig, stored.chatTemplate ?? undefined)
  if (template) renderChat(template, [{ role: 'user', content: 'hi' }], { addGenerationPrompt: true })
  await readAll(findWeights(config, stored.tensors, stored.configFile).values())
}

export async function makeKinds(): Promise<Record<string, Kind>> {
  const temp = () => mkdtempSync(join(tmpdir(), 'halfling-corrupt-'))
  const tiny = async (): Promise<string> => {
    const folder = join(temp(), 'tiny')
    await writeTinyModel(folder)
    return folder
  }
  const metadata = /\.(json|jinja)$/
  return {
    safetensors: inMemory(
      30,
      async () =>
        Buffer.concat(
          safetensorsChunks(
            (['F32', 'F16', 'I64', 'BOOL', 'F8_E4M3', 'F64', 'BF16'] as const).map((dtype, i) => {
              const bytes = { F32: 4, F16: 2, I64: 8, BOOL: 1, F8_E4M3: 1, F64: 8, BF16: 2 }[dtype]
              return { name: `t${i}`, dtype, shape: [3, i], data: new Uint8Array(3 * i * bytes) }
            }),
            { format: 'pt' },
          ),
        ),
      1e9,
      async (bytes) => readAll((await openSafetensors(bytesSource('damaged', bytes))).tensors.values()),
    ),
    gguf: inMemory(
      20,
      async () => {
        const file = join(temp(), 'tiny.gguf')
        await quantizeModel(await tiny(), file, { dtype: 'q8' })
        return readFileSync(file)
      },
      12_000,
      async (bytes) => {
        const source = ggufModel(await openGguf(bytesSource('damaged.gguf', bytes)))
        const { tensors, config, configFile, tokenizerJson, tokenizerConfig } = await source
        const parsed = parseConfig(config, configFile)
        findWeights(parsed, tensors, configFile)
        await readAll(tensors.values())
        loadTokenizer(tokenizerJson, tokenizerConfig).encode(hardText)
      },
    ),
    shards: inFolder(
      8,
      async () => {
        const file = (name: string) =>
          new Uint8Array(
            Buffer.concat(safetensorsChunks([{ name, dtype: 'F32', shape: [2, 3], data: new Uint8Array(24) }])),
          )
        const index = { metadata: { total_size: 48 }, weight_map: { a: 'one.safetensors', b: 'two.safetensors' } }
        return {
          'model.safetensors.index.json': text(JSON.stringify(index)),
          'one.safetensors': file('a'),
          'two.safetensors': file('b'),
        }
      },
      /./,
      async (folder) => {
        await readAll((await openTensors(await storeAt(folder))).tensors.values())
      },
    ),
    model: inFolder(12, async () => readFolder(await tiny()), metadata, tryModel),
    'q8 model': inFolder(
      6,
      async () => {
        const folder = join(temp(), 'q8')
        await quantizeModel(await tiny(), folder, { dtype: 'q8' })
        return readFolder(folder)
      },
      /config\.json|safetensors/,
      tryModel,
    ),
    adapter: inFolder(
      10,
      async () => {
        const config = {
          peft_type: 'LORA',
          r: 4,
          lora_alpha: 8,
          target_modules: ['q_proj', 'v_proj'],
          task_type: 'CAUSAL_LM',
        }
        const tensor = (name: string, shape: number[]) => ({
          name: `base_model.model.model.layers.0.self_attn.${name}.weight`,
          dtype: 'F32' as const,
          shape,
          data: new Uint8Array(4 * shape[0] * shape[1]),
        })
        const tensors = [tensor('q_proj.lora_A', [4, 64]), tensor('q_proj.lora_B', [64, 4])]
        const second = [tensor('v_proj.lora_A', [4, 64]), tensor('v_proj.lora_B', [32, 4])]
        const layer = (i: number) =>
          [...tensors, ...second].map((t) => ({ ...t, name: t.name.replace('layers.0', `layers.${i}`) }))
        return {
          'adapter_config.json': text(JSON.stringify(config)),
          'adapter_model.safetensors': new Uint8Array(Buffer.concat(safetensorsChunks([...layer(0), ...layer(1)]))),
        }
      },
      /./,
      async (folder) => {
        const { config, tensors } = await readAdapter(await storeAt(folder))
        adapterFromPeft('damaged', config, tensors, tinyConfig, folder)
      },
    ),
    checkpoint: inFolder(
      6,
      async () => {
        const state = {
          version: 1,
          step: 3,
          tokens: 70,
          pending: [{ loss: 1 }],
          metricsBytes: 10,
          best: { step: 2, value: 1 },
          evaluationsSinceBest: 0,
          arguments: { seed: 1, learningRate: 0.1 },
        }
        const moments = [...momentTypes].map(([name, shape]) => ({
          name,
          dtype: 'F32' as const,
          shape,
          data: new Uint8Array(4 * shape[0] * shape[1]),
        }))
        return {
          'trainer_state.json': text(JSON.stringify(state)),
          'optimizer.safetensors': new Uint8Array(Buffer.concat(safetensorsChunks(moments))),
        }
      },
      /./,
      async (folder) => {
        const checkpoint = await storeAt(folder)
        await readState(checkpoint, { seed: 1, learningRate: 0.1 })
        await restoreMoments(checkpoint, fakeStep)
      },
    ),
    rows: inFolder(
      15,
      async () => {
        const rows = [
          { question: 'What is 2 + 3?', answer: '5', solution: '2 + 3 = 5.' },
          {
            messages: [
              { role: 'user', content: 'hi' },
              { role: 'assistant', content: 'ho' },
            ],
          },
          { prompt: 'a', completion: 'b' },
          { text: 'some text, naïve' },
        ]
        return {
          'a.jsonl': text(rows.map((row) => JSON.stringify(row)).join('\n')),
          'b.json': text(JSON.stringify(rows)),
        }
      },
      /./,
      async (folder) => {
        for (const name of ['a.jsonl', 'b.json']) for await (const row of readRows(join(folder, name))) tokenizeRow(row)
      },
    ),
    yaml: inFolder(
      6,
      async () => ({
        'run.yaml': text(
          'model: nano\ndata: rows.jsonl\noutput_dir: out\nlearning_rate: 2e-4\nlora_r: 8\ncolumns: {question: q, answer: a}\nlora_target_modules: [q_proj, v_proj]\npacking: true\n# done\n',
        ),
      }),
      /./,
      async (folder) => {
        readConfig(join(folder, 'run.yaml'), sftKeys, aliases)
      },
    ),
    teacher: inFolder(
      6,
      async () => {
        const folder = join(temp(), 'cache')
        mkdirSync(folder, { recursive: true })
        const settings = { ...teacherSettings, rows: 3, tokens: 6, shardRows: 2 }
        const row = {
          ids: Int32Array.of(1, 2, 3, 4),
          logProbs: Float32Array.of(-0.5, -1.5, -0.1, -3),
          tail: Float32Array.of(-1.7, -3.1),
        }
        const store = await storeAt(folder)
        await startTeacherCache(store, settings)
        await writeTeacherShard(store, settings, 0, [row, row])
        await writeTeacherShard(store, settings, 1, [row])
        return readFolder(folder)
      },
      /./,
      async (folder) => {
        const cache = await TeacherCache.open(folder)
        for (let i = 0; i < Math.min(cache.settings.rows, 3); i++) await cache.row(i)
        await cache.verify()
      },
    ),
    parquet: inFolder(
      1,
      async () => ({
        'rows.parquet': new Uint8Array(
          parquetWriteBuffer({
            columnData: [
              { name: 'question', data: Array.from({ length: 40 }, (_, i) => `What is ${i} + 1?`), type: 'STRING' },
              { name: 'answer', data: Array.from({ length: 40 }, (_, i) => i + 1), type: 'INT32' },
            ],
          }),
        ),
      }),
      /./,
      async (folder) => {
        for await (const _ of readRows(join(folder, 'rows.parquet')));
      },
    ),
  }
}

const tinyConfig = parseConfig(
  {
    model_type: 'qwen2',
    vocab_size: 288,
    hidden_size: 64,
    intermediate_size: 192,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 512,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
    tie_word_embeddings: true,
  },
  'tiny',
)

const momentTypes = new Map([
  ['adam/m/x', [4, 6]],
  ['adam/v/x', [4, 6]],
])

/** As much of a TrainStep as restoring its moments asks for. */
const fakeStep = {
  *moments() {
    for (const [name, shape] of momentTypes) yield { name, type: { dtype: 'f32' as const, shape } }
  },
  model: { target: { write() {} }, buffer: () => ({}) },
} as unknown as TrainStep

const teacherSettings = {
  method: 'topk' as const,
  k: 2,
  temperature: 1,
  seed: 0,
  model: 'tiny',
  tokenizer: 'abc',
  template: null,
  dataset: 'def',
  vocabSize: 288,
}

const bytes = Object.fromEntries(
  Array.from({ length: 256 }, (_, b) => b)
    .map((b) => [(b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xff && b !== 0xad), b] as const)
    .reduce<[string, number][]>((all, [printable, b]) => {
      const spare = all.filter(([symbol]) => symbol.codePointAt(0)! >= 0x100).length
      all.push([String.fromCharCode(printable ? b : 0x100 + spare), b])
      return all
    }, []),
)
const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false }
const tokenizeRow = rowTokenizer(
  loadTokenizer(
    {
      version: '1.0',
      added_tokens: [],
      pre_tokenizer: byteLevel,
      decoder: byteLevel,
      model: { type: 'BPE', vocab: bytes, merges: [] },
    },
    {},
  ),
  { sources: { default: '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}' }, specialTokens: {} },
  { warn() {} },
)
