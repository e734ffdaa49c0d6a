import type { Survey } from '../data/survey.ts'
import type {
  DeviceName,
  DistillOptions,
  GRPOOptions,
  ScoredRollout,
  SFTOptions,
  TrainProgress,
  WeightDType,
} from '../index.ts'

/** Where a model comes from: `nano`, the name of one that was pulled or imported, a folder below a URL, or files. */
export type ModelPlace = string | { readonly url: string } | readonly File[]

/** How a model is loaded. */
export interface LoadSettings {
  readonly device?: DeviceName
  readonly threads?: number
  readonly dtype?: WeightDType
}

/** A model that is loaded, and what computes it. */
export interface ModelInfo {
  readonly device: {
    readonly name: string
    readonly description: string
    readonly threads: number
    /** Bytes. */
    readonly memoryLimit: number
  }
  /** Numbers in all its weights. */
  readonly parameters: number
  /** Tokens. */
  readonly context: number
  /** Whether it has a chat template. */
  readonly chats: boolean
}

/** What SFTTrainer takes, but for what does not go to another thread. */
export type SftJob = Omit<SFTOptions, 'model' | 'onWarning'>

/** What GRPOTrainer takes, with the rewards as source text: they run beside the model, not in the page. */
export type GrpoJob = Omit<
  GRPOOptions,
  'model' | 'refModel' | 'rolloutModel' | 'rewardFuncs' | 'onWarning' | 'onRollouts'
> & {
  /** Each the source of a function as `rewardFuncs` has them: `function reward(completions) { return [...] }`. */
  readonly rewards: string | readonly string[]
}

/** What DistillTrainer takes, with a teacher's cache as its folder in the browser's storage. */
export type DistillJob = Omit<DistillOptions, 'model' | 'teacher' | 'onWarning'> & { readonly teacher: string }

/** What a training tells beside its log. */
export type TrainEvent =
  | { readonly kind: 'progress'; readonly progress: TrainProgress }
  | { readonly kind: 'rollouts'; readonly rollouts: readonly ScoredRollout[] }
  | { readonly kind: 'warning'; readonly warning: string }

/** How an engine trains. */
export interface TrainCall {
  /** Go on from the newest checkpoint in `outputDir`. */
  readonly resume?: boolean
  /** The iteration throws its reason, and the adapters are as they were. */
  readonly signal?: AbortSignal
  readonly onEvent?: (event: TrainEvent) => void
}

/** A token of a row, and whether its prediction trains. */
export interface MaskedToken {
  readonly text: string
  readonly scored: boolean
}

/** What training would see of rows; the first of them token by token. */
export type RowPreview = Omit<Survey, 'examples'> & { readonly examples: readonly (readonly MaskedToken[])[] }

/** An adapter that is loaded. */
export interface AdapterState {
  readonly name: string
  readonly active: boolean
  readonly rank: number
}
