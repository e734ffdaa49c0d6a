import { describe, expect, it } from 'vitest'
import { chooseModelFiles } from '../../sdk/hub/choose.ts'
import { folderOf, parseDatasetName, parseModelName } from '../../sdk/hub/names.ts'
import { chooseRows, isDatasetName, splitOf } from '../../sdk/hub/rows.ts'
import { hasAllShards } from '../../sdk/hub/snapshot.ts'
import { hubNameOf } from '../../sdk/hub/url.ts'

describe('names of models', () => {
  it('are an organisation and a name, with a revision or a .gguf file', () => {
    const plain = { kind: 'model', id: 'Qwen/Qwen2.5-0.5B', file: null, revision: 'main' }
    expect(parseModelName('Qwen/Qwen2.5-0.5B')).toEqual(plain)
    expect(parseModelName('Qwen/Qwen2.5-0.5B@refs/pr/3')).toEqual({ ...plain, revision: 'refs/pr/3' })
    expect(parseModelName('Qwen/Qwen2.5-0.5B', 'v1')).toEqual({ ...plain, revision: 'v1' })
    expect(parseModelName('a/b/c/d.gguf@v1')).toEqual({ kind: 'model', id: 'a/b', file: 'c/d.gguf', revision: 'v1' })
    expect(folderOf(plain as never)).toBe('models--Qwen--Qwen2.5-0.5B')
    expect(() => parseModelName('a/b@v1', 'v2')).toThrow('a/b@v1: revision is "v2" as well')
    expect(() => parseModelName('a/b@../x')).toThrow('is not a branch, a tag or a commit')
  })

  it.each([
    'a',
    './a/b',
    '/a/b',
    '../a',
    'a/b/c',
    'a/../b',
    'a//b',
    'a/b/',
    '',
    'a/b/../x.gguf',
    'C:\\a\\b',
    '.a/b',
    'a b/c',
    'a/b.json',
  ])('%j is none', (name) => expect(parseModelName(name)).toBe(null))

  it('of the hub may be addresses of its pages', () => {
    expect(hubNameOf('https://huggingface.co/a/b')).toBe('a/b')
    expect(hubNameOf('https://huggingface.co/a/b/tree/v1')).toBe('a/b@v1')
    expect(hubNameOf('https://huggingface.co/a/b/resolve/main/x%20y.gguf?download=true')).toBe('a/b/x y.gguf@main')
    expect(hubNameOf('https://huggingface.co/datasets/a/b/blob/main/t.parquet')).toBe('a/b/t.parquet@main')
    expect(hubNameOf('https://huggingface.co/a/b.gguf')).toBe('https://huggingface.co/a/b.gguf')
    expect(hubNameOf('https://example.com/a/b')).toBe('https://example.com/a/b')
  })
})

describe('the files of a model', () => {
  const choose = (...paths: string[]) => chooseModelFiles(parseModelName('a/b')!, paths)
  const all = ['config.json', 'tokenizer.json']

  it('are its weights once, and what we read beside them', () => {
    const whole = [
      ...all,
      'model.safetensors',
      'generation_config.json',
      'original/model.safetensors',
      'onnx/model.onnx',
    ]
    expect(choose(...whole, 'consolidated.safetensors', 'pytorch_model.bin', 'vocab.json').sort()).toEqual([
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'tokenizer.json',
    ])
    const shards = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
    const index = 'model.safetensors.index.json'
    expect(choose(...all, ...shards, index, 'consolidated.00.safetensors').sort()).toEqual(
      [...all, ...shards, index].sort(),
    )
    expect(choose('adapter_config.json', 'adapter_model.safetensors', 'README.md')).toHaveLength(2)
    expect(() => choose('config.json', 'model.safetensors')).toThrow('has no tokenizer.json')
    expect(() => choose()).toThrow('it has no files')
  })
})

describe('names of datasets', () => {
  it('may name a folder or a file, and a split', () => {
    const plain = { kind: 'dataset', id: 'openai/gsm8k', path: '', split: 'train', revision: 'main' }
    expect(parseDatasetName('openai/gsm8k')).toEqual(plain)
    expect(parseDatasetName('openai/gsm8k/main:test@v1')).toEqual({
      ...plain,
      path: 'main',
      split: 'test',
      revision: 'v1',
    })
    expect(parseDatasetName('a/b/c/d.parquet')).toMatchObject({ id: 'a/b', path: 'c/d.parquet' })
    for (const name of ['rows.jsonl', 'data/rows.jsonl', './a/b', 'a/b:c:d', 'a/b:', 'C:\\rows', '/a/b', 'a'])
      expect(isDatasetName(name), name).toBe(false)
  })
})

describe('the rows of a split', () => {
  const choose = (name: string, ...paths: string[]) => chooseRows(parseDatasetName(name)!, paths)

  it('are the files that a path names so', () => {
    const names: [string, string | null][] = [
      ['data/train-00000-of-00004.parquet', 'train'],
      ['data/train_sft-00000-of-00004.parquet', 'train_sft'],
      ['main/test-00000-of-00001.parquet', 'test'],
      ['default/train/0000.parquet', 'train'],
      ['gsm8k_train.jsonl', 'train'],
      ['val.json', 'validation'],
      ['dev-v2.jsonl', 'validation'],
      ['trainer.json', null],
      ['rows.jsonl', null],
    ]
    for (const [path, split] of names) expect(splitOf(path), path).toBe(split)
  })

  it('are of one folder and one kind, in order', () => {
    const shards = ['data/train-00001-of-00002.parquet', 'data/train-00000-of-00002.parquet']
    const files = [...shards, 'data/test-00000-of-00001.parquet', 'train.jsonl', 'dataset_infos.json', 'README.md']
    expect(choose('a/b', ...files)).toEqual([shards[1], shards[0]])
    expect(choose('a/b:test', ...files)).toEqual(['data/test-00000-of-00001.parquet'])
    expect(choose('a/b/train.jsonl', ...files)).toEqual(['train.jsonl'])
    expect(choose('a/b', 'rows.jsonl', 'config.json')).toEqual(['rows.jsonl'])
    expect(choose('a/b:dpo', 'dpo.jsonl', 'sft.jsonl')).toEqual(['dpo.jsonl'])
    expect(choose('a/b:val', 'x/val.jsonl', 'x/train.jsonl')).toEqual(['x/val.jsonl'])
  })

  it('have to be told apart where several folders have them', () => {
    const files = ['main/train-00000-of-00001.parquet', 'socratic/train-00000-of-00001.parquet']
    expect(() => choose('openai/gsm8k', ...files)).toThrow(
      'openai/gsm8k: "train" is in several folders: choose one of openai/gsm8k/main:train, openai/gsm8k/socratic:train',
    )
    expect(choose('openai/gsm8k/main', ...files)).toEqual([files[0]])
    expect(choose('openai/gsm8k/main:train', ...files)).toEqual([files[0]])
  })

  it('that are not there: the error tells what is', () => {
    expect(() => choose('a/b:test', 'train.jsonl', 'validation.jsonl')).toThrow(
      'a/b: no rows of "test"; it has splits: train, validation; train.jsonl, validation.jsonl',
    )
    expect(() => choose('a/b', 'x.csv')).toThrow(
      'no files of rows: x.csv; the hub may have made some: a/b@refs/convert/parquet',
    )
    expect(() => choose('a/b/c.jsonl', 'd.jsonl')).toThrow('a/b: has no c.jsonl; it has d.jsonl')
  })

  it('are whole when every shard is there', () => {
    expect(hasAllShards(['x-00000-of-00002.parquet', 'x-00001-of-00002.parquet', 'y.parquet'])).toBe(true)
    expect(hasAllShards(['x-00001-of-00002.parquet'])).toBe(false)
  })
})
