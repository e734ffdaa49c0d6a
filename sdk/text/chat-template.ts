import { DataError, FormatError, OptionError } from '../errors.ts'
import { compile, render, type Template } from './jinja/render.ts'
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
  const program = compiled(source)
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
  try {
    return render(program, all)
  } catch (cause) {
    throw new DataError(`the chat template refuses these messages: ${(cause as Error).message}`, { cause })
  }
}

const programs = new Map<string, Template>()

function compiled(source: string): Template {
  const known = programs.get(source)
  if (known) return known
  let program: Template
  try {
    program = compile(source)
  } catch (cause) {
    throw new FormatError(`chat template: ${(cause as Error).message}`, { cause })
  }
  if (programs.size >= 16) programs.clear()
  programs.set(source, program)
  return program
}
