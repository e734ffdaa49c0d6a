import { DeviceLostError, MemoryError, NumericError, OptionError } from '../errors.ts'
import { survivingPieces } from '../model/lost.ts'
import type { Precision } from '../model/precision.ts'
import { Answer, type Piece } from './answer.ts'
import { KeyValueCache } from './cache.ts'
import type { LanguageModel } from './language-model.ts'
import type { Request } from './request.ts'
import { chunkRows, copySlots, decode, feed, rowBucket, type Sampled, type Sequence, type SlotCopy } from './steps.ts'

/** Tokens drawn in one run, at most: what comes after an end is computed in vain. */
const mostSteps = 16
/** Milliseconds that a run is to take while somebody reads along. */
const patience = 30
/** Tokens of a prompt that must be there already to be worth it, where it is not all of them. */
const worthReusing = 16

/** A request that waits or has a slot. */
export interface Row extends Request, Sequence {
  readonly topLogProbs: number
  readonly answer: Answer
  /** Not yet handed out. */
  readonly pieces: Piece[]
  failure: { readonly error: unknown } | null
  /** Nobody wants the rest. */
  hasLeft: boolean
  /** What its keys and values depend on beside its tokens. */
  numbers: string
}

/** Tokens whose keys and values a slot holds. */
interface Held {
  readonly ids: readonly number[]
  readonly numbers: string
}

const isOpen = ({ answer, failure, hasLeft }: Row): boolean => !answer.finishReason && !failure && !hasLeft
/** The last token of a prompt is fed with the first step: what comes after it is drawn anew for each answer. */
const isFeeding = ({ cached, promptIds }: Row): boolean => cached < promptIds.length - 1
const heldBy = ({ promptIds, drawn, cached, numbers }: Row): Held => ({
  ids: [...promptIds, ...drawn].slice(0, cached),
  numbers,
})

/**
 * Answers requests side by side (continuous batching): a request is admitted into a free slot while others decode, and row i of each
 * run is slot i. What a slot holds of a prompt already (an earlier turn, a prompt that several share) is not computed again. Whoever
 * waits for an answer drives: nothing is computed while nobody does. Rows get the same numbers in any company, but for last bits.
 */
export class Scheduler {
  private readonly lm: LanguageModel
  private readonly most: number
  private readonly precision: Precision
  private cache: KeyValueCache
  private rows: Row[] = []
  private waiting: Row[] = []
  /** What the slots after those of the rows hold still. */
  private held: Held[] = []
  /** To be carried out before anything runs. */
  private copies: SlotCopy[] = []
  private running: Promise<void> | null = null
  /** Of the next run, while somebody reads along. */
  private steps = 1
  private isClosed = false

  /** `most`: rows that decode side by side, each with a key/value cache. */
  constructor(lm: LanguageModel, most: number, precision = lm.precision) {
    this.lm = lm
    this.most = most
    this.precision = precision
    this.cache = this.emptyCache()
  }

  /** Room for so many positions in all slots at once, so that nothing grows later. */
  reserve(positions: number): Promise<void> {
    return this.cache.reserve(positions, this.most)
  }

  add(request: Request): Row {
    if (this.isClosed) throw new OptionError('this model is closed: load it again')
    const { lm } = this
    const row: Row = {
      ...{ ...request, answer: new Answer(lm, request), pieces: [], failure: null, hasLeft: false, numbers: '' },
      ...{ drawn: [], cached: 0, counted: -1 },
    }
    this.waiting.push(row)
    return row
  }

  /** The pieces of one answer. A device that is lost on the way makes it begin anew; what was handed out is passed over. */
  pieces(request: Request): AsyncGenerator<Piece, void> {
    return survivingPieces(this.lm.model, () => this.piecesOf(this.add(request)))
  }

  private async *piecesOf(row: Row): AsyncGenerator<Piece, void> {
    try {
      for (;;) {
        row.signal?.throwIfAborted()
        const piece = row.pieces.shift()
        if (piece) yield piece
        else if (row.failure) throw row.failure.error
        else if (row.answer.finishReason) return
        else await this.advance()
      }
    } finally {
      row.hasLeft = true
    }
  }

  /** One run of all rows: the one in flight, or the next. Rejects never: what fails is in the rows. */
  advance(): Promise<void> {
    this.running ??= this.step().finally(() => {
      this.running = null
    })
    return this.running
  }

  /** Between two runs: what changes the model's numbers. Answers under way go on with the new ones. */
  async between(work: () => Promise<void>): Promise<void> {
    while (this.running) await this.running
    const done = work()
    this.running = done
      .catch(() => {})
      .finally(() => {
        this.running = null
      })
    await done
  }

  /** Answers under way fail. */
  close(): void {
    this.isClosed = true
    this.rows.push(...this.waiting.splice(0))
    this.forget(new OptionError('this model is closed: load it again'))
  }

  private async step(): Promise<void> {
    try {
      for (const row of [...this.rows, ...this.waiting])
        if (row.signal?.aborted) row.failure ??= { error: row.signal.reason }
      if (this.cache.isLost) this.forget(new DeviceLostError('the device was lost between two runs of a generation'))
      this.release()
      await this.admit()
      this.release()
      if (this.rows.length > 0) await this.decode()
    } catch (error) {
      if (this.rows.every(({ signal }) => signal?.aborted)) this.failAll(error)
      else this.forget(error)
    }
  }

  private failAll(error: unknown): void {
    for (const row of this.rows) row.failure ??= { error: row.signal?.aborted ? row.signal.reason : error }
  }

  /** Begins anew with an empty cache. */
  private forget(error: unknown): void {
    this.failAll(error)
    ;[this.rows, this.held, this.copies] = [[], [], []]
    if (!this.cache.isLost) this.cache.free()
    this.cache = this.emptyCache()
  }

  private emptyCache(): KeyValueCache {
    return new KeyValueCache(this.lm.model, 0, this.precision)
  }

  /** Rows that are over leave: the last row moves into the slot of each. */
  private release(): void {
    this.waiting = this.waiting.filter(isOpen)
    for (let slot = this.rows.length - 1; slot >= 0; slot--) {
      if (isOpen(this.rows[slot])) continue
      this.held[slot] = heldBy(this.rows[slot])
      const last = this.rows.pop()!
      const from = this.rows.length
      if (from === slot) continue
      this.rows[slot] = last
      this.held[from] = heldBy(last)
      this.copies.push({ from, to: slot, length: last.cached })
      last.counted = -1
    }
  }

  /** Requests get slots, and their prompts are computed: a chunk a run where others decode for readers, else at once. */
  private async admit(): Promise<void> {
    for (;;) {
      const row = this.rows.find(isFeeding) ?? this.next()
      if (!row) return
      try {
        if (row.numbers === '') await this.place(row)
        await this.feed(row)
      } catch (error) {
        if (error instanceof DeviceLostError) throw error
        row.failure = { error }
        this.release()
      }
      if (isFeeding(row) && isOpen(row)) return
    }
  }

  /** The next request gets the slot after the last row. */
  private next(): Row | null {
    if (this.waiting.length === 0 || this.rows.length === this.most) return null
    this.rows.push(this.waiting.shift()!)
    return this.rows.at(-1)!
  }

  /** A new row has what is there or elsewhere of its prompt. */
  private async place(row: Row): Promise<void> {
    const slot = this.rows.length - 1
    if (slot === this.cache.slots) await this.cache.reserve(1, Math.min(rowBucket(slot + 1), this.most))
    const { model } = this.lm
    row.numbers = `${model.version} ${model.numbersVersion} ${model.activeAdapters.join(' ')} / ${row.adapter ?? ''}`
    const shared = Array.from({ length: this.cache.slots }, (_, from) => this.sharedWith(row, from))
    row.cached = Math.max(...shared)
    if (row.cached > shared[slot]) this.copies.push({ from: shared.indexOf(row.cached), to: slot, length: row.cached })
  }

  /** Tokens at the beginning of a row's prompt, without its last one, that a slot holds. */
  private sharedWith(row: Row, slot: number): number {
    const other = this.rows[slot]
    const held = other && other !== row ? heldBy(other) : this.held[slot]
    if (held?.numbers !== row.numbers) return 0
    const most = Math.min(held.ids.length, row.promptIds.length - 1)
    let shared = 0
    while (shared < most && held.ids[shared] === row.promptIds[shared]) shared++
    return shared >= worthReusing || shared === row.promptIds.length - 1 ? shared : 0
  }

  private async feed(row: Row): Promise<void> {
    const { model } = this.lm
    const before = row.cached
    const others = this.rows.filter((other) => other !== row)
    const end = others.some(({ isRead }) => isRead) ? before + chunkRows : row.promptIds.length
    const ids = row.promptIds.slice(before, Math.min(end, row.promptIds.length - 1))
    if (ids.length === 0) return
    await this.carryOut()
    try {
      await feed(model, this.cache, this.rows.indexOf(row), row, ids, row.signal)
    } finally {
      this.lm.prefilledTokens += row.cached - before
    }
  }

  private async carryOut(): Promise<void> {
    await copySlots(this.lm.model, this.cache, this.copies)
    this.copies = []
  }

  private async decode(): Promise<void> {
    const { rows } = this
    await this.carryOut()
    const room = (row: Row) => (isFeeding(row) ? 0 : row.budget - row.drawn.length)
    const isRead = rows.some((row) => row.isRead)
    const steps = Math.min(isRead ? this.steps : mostSteps, Math.max(...rows.map(room)))
    if (steps === 0) return
    const start = performance.now()
    // One that is not everybody's ends its row after the run.
    const signal = rows.every((row) => row.signal === rows[0].signal) ? rows[0].signal : undefined
    let drawn: Sampled[][]
    try {
      drawn = await decode(this.lm.model, this.cache, rows, { steps, room, signal })
    } catch (error) {
      // The cache could not grow: that is the end of those alone that need more of it.
      const long = rows.filter((row) => row.cached + Math.min(steps, room(row)) > this.cache.capacity)
      if (!(error instanceof MemoryError && long.length > 0)) throw error
      for (const row of long) row.failure = { error }
      return
    }
    const milliseconds = (performance.now() - start) / steps
    if (isRead) this.steps = Math.max(1, Math.min(mostSteps, 2 * steps, Math.floor(patience / milliseconds)))
    for (const [i, row] of rows.entries()) take(row, drawn[i])
  }
}

/** Takes over what was drawn, up to an end. */
function take(row: Row, tokens: readonly Sampled[]): void {
  for (const token of tokens) {
    if (!Number.isFinite(token.logProb)) {
      const place = row.promptIds.length + row.drawn.length
      row.failure = {
        error: new NumericError(
          `token ${place}: the logits are not finite (broken weights, or an adapter that diverged in training?)`,
        ),
      }
      return
    }
    row.drawn.push(token.id)
    const piece = row.answer.push(token)
    if (piece) row.pieces.push(piece)
    if (row.answer.finishReason) return
  }
}
