import { notScored } from '../data/pack.ts'
import type { RowSource } from '../data/rows.ts'
import { type Survey, surveyRows } from '../data/survey.ts'
import type { LanguageModel } from '../generate/language-model.ts'

/** A token of a row, and whether its prediction trains. */
export interface MaskedToken {
  readonly text: string
  readonly scored: boolean
}

/** What training would see of rows; the first of them token by token. */
export type RowPreview = Omit<Survey, 'examples'> & { readonly examples: readonly (readonly MaskedToken[])[] }

/** What training a model would see of rows, the first `show` of them token by token. */
export async function previewRows(
  { tokenizer, chatTemplate }: LanguageModel,
  rows: RowSource,
  show = 3,
): Promise<RowPreview> {
  const { examples, ...survey } = await surveyRows(rows, tokenizer, chatTemplate, show)
  const tokens = examples.map(({ inputIds, labels }) =>
    inputIds.map((id, t) => ({ text: tokenizer.decode([id]), scored: t > 0 && labels[t] !== notScored })),
  )
  return { ...survey, examples: tokens }
}
