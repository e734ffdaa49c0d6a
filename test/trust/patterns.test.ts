import { describe, expect, it } from 'vitest'
import { DataError, FormatError, OptionError } from '../../sdk/errors.ts'
import { parseAdapterConfig } from '../../sdk/formats/peft.ts'
import { parseConfig } from '../../sdk/model/config.ts'
import { resolveTargets } from '../../sdk/model/lora-targets.ts'
import { waysToMatch } from '../../sdk/pattern.ts'
import { renderChat } from '../../sdk/text/chat-template.ts'
import { loadTokenizer } from '../../sdk/text/tokenizer.ts'

// Files of strangers hold programs: regular expressions and templates. None runs for ever or uses up the memory.

it('waysToMatch', () => {
  for (const [pattern, ways] of [
    ['(a|ab)x', 2],
    ['(?:q|k)_proj', 1],
    ['(?:a?b|b)', 3],
    ['a*b*', 256],
    ['[^]*]{2}|\\(+', 32],
    ['(?:ab)+', 16],
    ['(\\d{3})+(?!\\d)', 16],
    ['(a+)+', Infinity],
    ['(a|a)*', Infinity],
    ['(?<n>.|.)*x', Infinity],
    ['(a?){30}', 2 ** 30],
    ['(a|a)'.repeat(30), 2 ** 30],
    ['('.repeat(5000), Infinity],
  ] as const)
    expect(waysToMatch(pattern), pattern.slice(0, 20)).toBe(ways)
})

describe('target_modules of an adapter', () => {
  const model = parseConfig(
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
      tie_word_embeddings: true,
    },
    'tiny',
  )
  const targets = (pattern: string) =>
    resolveTargets(parseAdapterConfig({ peft_type: 'LORA', target_modules: pattern }, 'adapter'), model)

  it('patterns in use', () => {
    const linear = 'q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj'
    const parts = 'self_attn|attention|attn|mlp|feed_forward|ffn|dense'
    // As unsloth writes it.
    const unsloth = `(?:.*?(?:language|text).*?(?:${parts}).*?(?:${linear}).*?)|(?:\\bmodel\\.layers\\.[\\d]{1,}\\.(?:${parts})\\.(?:(?:${linear})))`
    expect(targets(unsloth).size).toBe(14)
    expect(targets('.*\\.layers\\.(0|1)\\..*(q|v)_proj').size).toBe(4)
    expect(targets('^(?!.*vision).*(?:q_proj|o_proj)$').size).toBe(4)
  })

  it.each(['(.|.)*x', '(.*)*x', `${'.*'.repeat(8)}x`, '(?:.{1000}){1000}x', `${'(.?)'.repeat(30)}x`])(
    'refuses %s',
    (hostile) => {
      const start = performance.now()
      expect(() => targets(hostile)).toThrow(OptionError)
      expect(performance.now() - start).toBeLessThan(1000)
    },
  )
})

describe('patterns of a tokenizer', () => {
  const make = (pattern: unknown, more: object = {}) =>
    loadTokenizer(
      {
        added_tokens: [],
        pre_tokenizer: {
          type: 'Sequence',
          pretokenizers: [{ type: 'Split', pattern, behavior: 'Isolated', invert: false, ...more }],
        },
        model: { type: 'BPE', vocab: { a: 0, '!': 1 }, merges: [] },
      },
      {},
    )
  const word = "'s|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
  const o200k = `${word}*[\\p{Ll}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|${word}+[\\p{Ll}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`

  it('reads the largest in use, and a plain text', () => {
    expect(make({ Regex: o200k }).encode('aa!')).toEqual([0, 0, 1])
    expect(make({ String: '!' }).encode('a!')).toEqual([0, 1])
  })

  it('refuses what takes for ever, and what is no pattern', () => {
    expect(() => make({ Regex: '(a+)+$' })).toThrow(
      'pre_tokenizer.pretokenizers.0.pattern: a repetition in a repetition',
    )
    for (const wrong of [{}, null, 7, { Regex: 7 }, { Regex: null, String: 'a' }])
      expect(() => make(wrong)).toThrow(/pattern is neither/)
    expect(() => make({ String: 'a' }, { behavior: 7 })).toThrow(FormatError)
  })
})

describe('chat templates', () => {
  const render = (template: string, messages = [{ role: 'user', content: 'hi' }]) =>
    renderChat({ sources: { default: template }, specialTokens: {} }, messages)
  const grow = (step: string) => `{% set n = namespace(s="x", l=[1]) %}{% for i in range(100) %}${step}{% endfor %}`

  it.each([
    ['a long range', '{% for i in range(1000000000) %}x{% endfor %}', /range\(\) of 1000000000/],
    [
      'empty loops',
      '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}',
      /longer than|too much/,
    ],
    ['macros', '{% macro m(k) %}{% if k %}{{ m(k-1) }}{{ m(k-1) }}{% endif %}{% endmacro %}{{ m(60) }}', /longer than/],
    ['texts that double', grow('{% set n.s = n.s ~ n.s %}'), /too much text/],
    ['blocks that double', grow('{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}'), /too much text/],
    ['lists that double', grow('{% set n.l = n.l + n.l %}'), /too much text/],
    ['brackets', `{{ ${'['.repeat(20_000)}${']'.repeat(20_000)} }}`, /call stack/],
  ])('%s', (_, template, message) => {
    const start = performance.now()
    let error: unknown
    try {
      render(template)
    } catch (thrown) {
      error = thrown
    }
    expect(error).toSatisfy((e) => e instanceof DataError || e instanceof FormatError)
    expect((error as Error).message).toMatch(message)
    expect(performance.now() - start).toBeLessThan(3000)
  })

  it('long conversations, and the names that templates know', () => {
    const messages = Array.from({ length: 3000 }, () => ({ role: 'user', content: 'some words here '.repeat(100) }))
    const long = '{% for m in messages %}{{ messages[loop.index0].role + m.content|trim }}{% endfor %}'
    expect(render(long, messages)).toHaveLength(3000 * (1600 - 1 + 4))
    expect(render('{{ strftime_now("%Y") }} {{ True }} {{ None is none }} {{ range(2, 8, 3) | list }}')).toMatch(
      /^\d{4} True True \[2, 5\]$/,
    )
  })
})
