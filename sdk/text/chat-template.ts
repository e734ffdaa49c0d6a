import { Environment, Interpreter, parse, Template, tokenize } from '@huggingface/jinja'
import { DataError, FormatError, OptionError } from '../errors.ts'
import { tokenText } from './tokenizer.ts'

/** A message as chat templates know it; templates also read keys such as `tool_calls`, `name`, `reasoning_content`. */
export interface ChatMessage {
  readonly role: string
  readonly content?: unknown
  readonly [key: string]: unknown
}

/** The Jinja templates of a model, with the special tokens that they may write. */
export interface ChatTemplate {
  /** Jinja sources by name: `default`, and perhaps `tool_use`, which is taken when tools are given. */
  readonly sources: Readonly<Record<string, string>>
  /** `bos_token`, `eos_token`, ... as template variables. */
  readonly specialTokens: Readonly<Record<string, string>>
}

export interface RenderOptions {
  /** JSON schemas, as transformers takes them. */
  readonly tools?: readonly unknown[] | null
  /** Ends with the opening of an assistant's turn. */
  readonly addGenerationPrompt?: boolean
  /** Instead of the tokenizer's. */
  readonly bosToken?: string
  readonly eosToken?: string
  /** Any other variable of the template, under its own name: `enable_thinking`, `documents`. */
  readonly [variable: string]: unknown
}

/**
 * The chat template of a model: the file chat_template.jinja where there is one, else `chat_template` of
 * tokenizer_config.json (a string, or a list of named ones). null: the model has none. Throws FormatError.
 */
export function loadChatTemplate(tokenizerConfig: object, jinjaFile?: string): ChatTemplate | null {
  const config = tokenizerConfig as Readonly<Record<string, unknown>>
  const specialTokens: Record<string, string> = {}
  for (const key of ['bos_token', 'eos_token', 'unk_token', 'pad_token']) {
    const text = tokenText(config[key])
    if (text !== undefined) specialTokens[key] = text
  }
  const given = jinjaFile ?? config.chat_template
  if (given === undefined || given === null) return null
  if (typeof given === 'string') return { sources: { default: given }, specialTokens }
  const named = Array.isArray(given) ? given : []
  const sources: Record<string, string> = {}
  for (const entry of named)
    if (typeof entry?.name === 'string' && typeof entry.template === 'string') sources[entry.name] = entry.template
  if (Object.keys(sources).length === 0)
    throw new FormatError('tokenizer_config.json: chat_template is neither a string nor a list of {name, template}')
  return { sources, specialTokens }
}

/** Throws OptionError when there is no template. */
export function requireChatTemplate(template: ChatTemplate | null): ChatTemplate {
  if (template) return template
  throw new OptionError('this model has no chat template: use generate with a raw prompt, or give one (chatTemplate)')
}

/**
 * The text of a conversation, as transformers' apply_chat_template gives it.
 * Throws FormatError for a template that cannot be parsed, DataError for messages that it refuses.
 */
export function renderChat(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  { tools, addGenerationPrompt = false, bosToken, eosToken, ...variables }: RenderOptions = {},
): string {
  const hasTools = tools !== undefined && tools !== null && tools.length > 0
  const name = hasTools && template.sources.tool_use !== undefined ? 'tool_use' : 'default'
  const source = template.sources[name]
  if (source === undefined)
    throw new FormatError(
      `tokenizer_config.json: chat_template has no template named 'default', only ${Object.keys(template.sources).join(', ')}`,
    )
  const program = compile(source)
  try {
    const environment = globals()
    const all = {
      ...template.specialTokens,
      ...(bosToken !== undefined && { bos_token: bosToken }),
      ...(eosToken !== undefined && { eos_token: eosToken }),
      documents: null,
      ...variables,
      messages,
      tools: hasTools ? tools : null,
      add_generation_prompt: addGenerationPrompt,
    }
    for (const [key, value] of Object.entries(all)) environment.set(key, value)
    const given = JSON.stringify([messages, all.tools]).length
    return new BoundedInterpreter(environment, given).run(program).value as string
  } catch (cause) {
    throw new DataError(`the chat template refuses these messages: ${(cause as Error).message}`, { cause })
  }
}

/**
 * Milliseconds; numbers in a range; characters of a value, and of all that the operators and filters of one rendering make. A
 * member of a list counts for 16.
 */
const limits = { time: 1000, range: 100_000, value: 2 ** 21, made: 2 ** 26 }

type Statement = { readonly type: string }
type Evaluated = { readonly value: unknown }
/** The library's own types are lost in its package. */
const Library = Interpreter as unknown as new (
  environment: Environment,
) => {
  run(program: Statement): Evaluated
  evaluate(statement: Statement | undefined, environment: Environment): Evaluated
}

/** Runs the template of a stranger: none loops for ever, or uses up the memory. */
class BoundedInterpreter extends Library {
  private readonly end = performance.now() + limits.time
  private readonly given: number
  private made = 0

  /** @param given characters of the messages */
  constructor(environment: Environment, given: number) {
    super(environment)
    this.given = given
  }

  override evaluate(statement: Statement | undefined, environment: Environment): Evaluated {
    if (performance.now() > this.end) throw new Error(`it takes longer than ${limits.time} ms`)
    const result = super.evaluate(statement, environment)
    const { value } = result
    const length = Array.isArray(value) ? 16 * value.length : typeof value === 'string' ? value.length : 0
    if (statement && makers.has(statement.type)) this.made += length
    if (length > limits.value + 4 * this.given || this.made > limits.made + 64 * this.given)
      throw new Error('it makes too much text')
    return result
  }
}

/** Statements whose value may be larger than what it is made of. */
const makers = new Set(['BinaryExpression', 'CallExpression', 'FilterExpression', 'FilterStatement', 'For'])

/** Names that every template knows, as the library's own Template sets them. */
function globals(): Environment {
  const environment = new Environment()
  for (const [names, value] of [
    [['true', 'True'], true],
    [['false', 'False'], false],
    [['none', 'None'], null],
  ] as const)
    for (const name of names) environment.set(name, value)
  environment.set('raise_exception', (message: string) => {
    throw new Error(message)
  })
  environment.set('range', boundedRange)
  // The library does not give this one away.
  environment.set('strftime_now', (format: string) => new Template('{{ strftime_now(f) }}').render({ f: format }))
  return environment
}

function boundedRange(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, start] : [start, stop]
  const count = Math.ceil((to - from) / step)
  if (!(count <= limits.range)) throw new Error(`range() of ${count} numbers`)
  return Array.from({ length: Math.max(0, count) }, (_, i) => from + i * step)
}

const programs = new Map<string, Statement>()

function compile(source: string): Statement {
  const known = programs.get(source)
  if (known) return known
  let program: Statement
  try {
    program = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }))
  } catch (cause) {
    throw new FormatError(`chat template: ${(cause as Error).message}`, { cause })
  }
  if (programs.size >= 16) programs.clear()
  programs.set(source, program)
  return program
}
