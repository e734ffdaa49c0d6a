import { questionPrompt } from '../data/tokenize.ts'
import { OptionError } from '../errors.ts'
import type { LanguageModel } from '../generate/language-model.ts'
import type { GenerateOptions } from '../generate/request.ts'
import { shown } from '../options.ts'

/** How a question is put. */
export const templates = {
  /** As it stands: in the chat template, or as "Question: ...\nAnswer:" where there is none. */
  chat: '{question}',
  /** LightEval's prompt for mathematics (default_prompts.py). */
  lighteval: String.raw`Solve the following math problem efficiently and clearly.  The last line of your response should be of the following format: 'Therefore, the final answer is: $\boxed{ANSWER}$. I hope it is correct' (without quotes) where ANSWER is just the final number or expression that solves the problem. Think step by step before answering.

{question}`,
}

/** A row of a test set. */
export interface Question {
  readonly question: string
  /** The answer, or a solution that ends with one as GSM8K's do ("... #### 18"). */
  readonly answer: string
}

/** Where an answer ends: without a chat template a model may go on asking itself. */
export const stopsOf = ({ chatTemplate }: LanguageModel, { stop }: GenerateOptions): readonly string[] =>
  stop ?? (chatTemplate ? [] : ['\nQuestion:'])

/**
 * Token ids that ask a question.
 *
 * @param template a name of `templates`, or a text with {question} in it
 * @throws OptionError for a template without {question}, a system message without a chat template
 */
export function encodeQuestion(lm: LanguageModel, question: string, template: string, system?: string): number[] {
  const text = Object.hasOwn(templates, template) ? templates[template as keyof typeof templates] : template
  const parts = text.split('{question}')
  if (parts.length < 2)
    throw new OptionError(
      `template: ${shown(template)} is not one of ${Object.keys(templates).join(', ')}, and has no {question} in it`,
    )
  const content = parts.join(question)
  if (lm.chatTemplate) {
    const opening = system === undefined ? [] : [{ role: 'system', content: system }]
    return lm.chatPrompt([...opening, { role: 'user', content }])
  }
  if (system !== undefined)
    throw new OptionError('system: this model has no chat template to put it in; give a template with it instead')
  return lm.encodePrompt(template === 'chat' ? questionPrompt(question) : content)
}
