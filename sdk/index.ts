export type { RowSource } from './data/rows.ts'
export type { Example } from './data/tokenize.ts'
export { type DeviceName, type DeviceOptions, type DeviceReport, findDevices } from './device.ts'
export type { DType } from './dtype.ts'
export {
  CollapseError,
  ContextError,
  DataError,
  DeviceError,
  FormatError,
  HalflingError,
  HubError,
  MemoryError,
  NumericError,
  OptionError,
  RewardError,
  ShapeError,
  TeacherError,
} from './errors.ts'
export { type Comparison, compareRuns } from './eval/compare.ts'
export { type EvalOptions, type EvalProgress, evaluate } from './eval/evaluate.ts'
export {
  type ExactMatch,
  type ExactMatchItem,
  type ExactMatchOptions,
  type ExactMatchProgress,
  evaluateExactMatch,
  type Question,
} from './eval/exact-match.ts'
export { type Grade, grade } from './eval/grade.ts'
export type { GraderName } from './eval/graders.ts'
export type { EvalResults } from './eval/results.ts'
export { readTask, type TaskName, taskNames } from './eval/tasks.ts'
export { type Folder, fileFolder, urlFolder } from './formats/folder.ts'
export { type TensorData, writeSafetensors } from './formats/safetensors.ts'
export { type BatchCompletion, type BatchOptions, generateBatch } from './generate/batch.ts'
export {
  type ChatOptions,
  type Completion,
  type FinishReason,
  type GenerateOptions,
  LanguageModel,
  type Piece,
} from './generate/language-model.ts'
export { type Rollout, type RolloutOptions, rollout } from './generate/rollout.ts'
export type { SamplingOptions } from './generate/sampling.ts'
export { type ScoreOptions, scoreExamples } from './generate/score.ts'
export { importModel } from './hub/import.ts'
export { type CachedModel, listModels, removeModel } from './hub/list.ts'
export { pullModel } from './hub/models.ts'
export { pullDataset } from './hub/rows.ts'
export type { PullOptions, PullProgress } from './hub/snapshot.ts'
export { type LoadOptions, loadAdapter, loadModel } from './load.ts'
export type { Adapter, AdapterModule, LoraConfig } from './model/adapter.ts'
export type { MergedDType } from './model/merge.ts'
export type { LoadProgress, WeightDType } from './model/model.ts'
export {
  type FileDType,
  type QuantizedPart,
  type QuantizeOptions,
  type QuantizeReport,
  quantizeModel,
} from './quantize.ts'
export { accuracyReward } from './rewards/accuracy.ts'
export { formatReward } from './rewards/format.ts'
export { type CosineOptions, cosineReward, lengthReward, softOverlongPenalty } from './rewards/length.ts'
export { type RepetitionOptions, repetitionPenalty } from './rewards/repetition.ts'
export type { RewardFunction, RewardInput } from './rewards/reward.ts'
export type { Speed } from './speed.ts'
export type { CompileProgress } from './target.ts'
export type { ChatMessage } from './text/chat-template.ts'
export type { GrpoLossType, ImportanceSamplingCorrection, ScaleRewards } from './train/advantages.ts'
export { type DistillConfig, type DistillOptions, DistillTrainer } from './train/distill.ts'
export { type GRPOOptions, GRPOTrainer } from './train/grpo.ts'
export type { GRPOConfig } from './train/grpo-arguments.ts'
export type { TrainLog, TrainOptions, TrainProgress } from './train/loop.ts'
export type { MetricsLine, RolloutMetrics } from './train/metrics.ts'
export type { ScoredRollout } from './train/rewarded.ts'
export type { Schedule } from './train/schedule.ts'
export { type SFTConfig, type SFTOptions, SFTTrainer } from './train/sft.ts'
export type { Forecast } from './train/step.ts'
