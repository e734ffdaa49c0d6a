export { type Grade, grade } from './answers/grade.ts'
export type { GraderName } from './answers/graders.ts'
export type { RowSource } from './data/rows.ts'
export type { Example } from './data/tokenize.ts'
export {
  type DeviceName,
  type DeviceOptions,
  type DeviceReport,
  type FindOptions,
  findDevices,
  type WasmBuild,
} from './device.ts'
export type { DType, FloatDType } from './dtype.ts'
export {
  CollapseError,
  ContextError,
  DataError,
  DeviceError,
  DeviceLostError,
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
export { type EvalOptions, type EvalProgress, type Evaluation, evaluate } from './eval/evaluate.ts'
export type { Question } from './eval/prompts.ts'
export type { EvalResults } from './eval/results.ts'
export type { AnsweredItem } from './eval/run-folder.ts'
export { readTask, type TaskName, taskNames } from './eval/tasks.ts'
export { type ExportOptions, exportOnnx, type OnnxDType, onnxDTypes } from './export/onnx.ts'
export { type TensorData, writeSafetensors } from './formats/safetensors.ts'
export type { Completion, FinishReason, Piece } from './generate/answer.ts'
export { type BatchCompletion, type BatchOptions, generateBatch } from './generate/batch.ts'
export { type ChatOptions, LanguageModel } from './generate/language-model.ts'
export type { GenerateOptions } from './generate/request.ts'
export { type Rollout, type RolloutOptions, rollout } from './generate/rollout.ts'
export type { SamplingOptions } from './generate/sampling.ts'
export { type ScoreOptions, scoreExamples } from './generate/score.ts'
export { importModel } from './hub/import.ts'
export { type CachedModel, listModels, removeModel } from './hub/list.ts'
export { pullModel } from './hub/models.ts'
export { pullDataset } from './hub/rows.ts'
export type { PullOptions, PullProgress } from './hub/snapshot.ts'
export { describeModel, type LoadOptions, loadAdapter, loadModel } from './load.ts'
export type { Adapter, AdapterModule, LoraConfig } from './model/adapter.ts'
export type { AdapterDescription, DTypeForecast, ModelDescription, StoredPart } from './model/describe.ts'
export type { LoadProgress } from './model/model.ts'
export type { CacheDType } from './model/precision.ts'
export type { WriteOptions, WrittenPart } from './model/write.ts'
export { type QuantizeOptions, type QuantizeReport, quantizeModel } from './quantize.ts'
export { accuracyReward } from './rewards/accuracy.ts'
export { formatReward } from './rewards/format.ts'
export { type CosineOptions, cosineReward, lengthReward, softOverlongPenalty } from './rewards/length.ts'
export { type RepetitionOptions, repetitionPenalty } from './rewards/repetition.ts'
export type { RewardFunction, RewardInput } from './rewards/reward.ts'
export { predictDecode, type Speed } from './speed.ts'
export { type MemoryStoreOptions, memoryStore } from './store/memory.ts'
export { fileFolder, urlFolder } from './store/sources.ts'
export type { Source, Store } from './store/store.ts'
export type { CompileProgress } from './target.ts'
export type { ChatMessage } from './text/chat-template.ts'
export type { TrainerOptions } from './train/arguments.ts'
export type { DistillConfig, GRPOConfig, SFTConfig } from './train/config.ts'
export { type DistillOptions, DistillTrainer } from './train/distill.ts'
export { type GRPOOptions, GRPOTrainer } from './train/grpo.ts'
export type { MetricsLine, RolloutMetrics } from './train/metrics.ts'
export { type MaskedToken, previewRows, type RowPreview } from './train/preview.ts'
export type { ScoredRollout } from './train/rewarded.ts'
export type { TrainLog, TrainOptions, TrainPlan, TrainProgress } from './train/run.ts'
export { type SFTOptions, SFTTrainer } from './train/sft.ts'
export type { Forecast } from './train/step.ts'
