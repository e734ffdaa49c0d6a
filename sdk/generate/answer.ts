import { DecodeStream } from '../text/decode-stream.ts'
import { StopStrings } from '../text/stop.ts'
import type { LanguageModel } from './language-model.ts'
import type { Request } from './request.ts'
import type { Sampled, TopLogProbs } from './steps.ts'

/**
 * `stop`: an end token, or a text of `stop`. `length`: it was cut, by maxNewTokens or the end of the context; `answerPrefix` of `chat`
 * goes on.
 */
export type FinishReason = 'stop' | 'length'

/** A part of an answer: text as soon as its characters are whole, with the tokens that came since the last piece. */
export interface Piece {
  readonly text: string
  readonly tokenIds: readonly number[]
  /** Natural logarithms, one a token. */
  readonly logProbs: readonly number[]
  /** With `topLogProbs`: one a token. */
  readonly top?: readonly TopLogProbs[]
  /** On the last piece. */
  readonly finishReason?: FinishReason
}

/** A whole answer. */
export interface Completion {
  /** Without special tokens. */
  readonly text: string
  /** With the end token. */
  readonly tokenIds: number[]
  /** Natural logarithms, one a token, at the temperature used and before top-k, top-p and min-p. */
  readonly logProbs: number[]
  /** With `topLogProbs`: one a token. */
  readonly top?: TopLogProbs[]
  readonly finishReason: FinishReason
}

/** All pieces of an answer as one. */
export function joined(pieces: readonly Piece[]): Completion {
  return {
    text: pieces.map((piece) => piece.text).join(''),
    tokenIds: pieces.flatMap((piece) => piece.tokenIds),
    logProbs: pieces.flatMap((piece) => piece.logProbs),
    ...(pieces.some((piece) => piece.top) && { top: pieces.flatMap((piece) => piece.top!) }),
    finishReason: pieces.at(-1)!.finishReason!,
  }
}

/** The text of an answer while its tokens come, and where it ends. */
export class Answer {
  finishReason: FinishReason | null = null
  private readonly request: Request
  private readonly eosTokenIds: ReadonlySet<number>
  private readonly stream: DecodeStream
  private readonly stops: StopStrings
  private pending: Sampled[] = []
  private tokens = 0

  constructor({ tokenizer, eosTokenIds }: LanguageModel, request: Request) {
    this.request = request
    this.eosTokenIds = eosTokenIds
    this.stream = new DecodeStream(tokenizer)
    for (const id of request.prefix) this.stream.push(id)
    const controls = request.stop.length > 0 ? [...tokenizer.specialIds] : []
    this.stops = new StopStrings(
      request.stop,
      controls.map((id) => [id, tokenizer.idToToken(id)!] as const),
    )
  }

  /** What is certain with this token; null: nothing new. */
  push(token: Sampled): Piece | null {
    const { stops, stream } = this
    this.pending.push(token)
    this.tokens++
    const isEnd = this.eosTokenIds.has(token.id)
    const { text, stopped } = stops.push(isEnd ? '' : stops.sign(token.id) + stream.push(token.id))
    if (stopped) return this.piece(text, 'stop')
    if (!isEnd && this.tokens < this.request.budget) return text === '' ? null : this.piece(text)
    const rest = stops.push(stream.flush())
    const isStop = isEnd || rest.stopped
    return this.piece(text + rest.text + (rest.stopped ? '' : stops.flush()), isStop ? 'stop' : 'length')
  }

  private piece(text: string, finishReason?: FinishReason): Piece {
    const { pending } = this
    this.pending = []
    this.finishReason = finishReason ?? null
    return {
      text,
      tokenIds: pending.map(({ id }) => id),
      logProbs: pending.map(({ logProb }) => logProb),
      ...(this.request.topLogProbs > 0 && { top: pending.map(({ top }) => top!) }),
      ...(finishReason && { finishReason }),
    }
  }
}
