export { Engine, type EngineOptions, openEngine } from './engine.ts'
export type {
  AdapterState,
  DistillJob,
  GrpoJob,
  LoadSettings,
  MaskedToken,
  ModelInfo,
  ModelPlace,
  RowPreview,
  SftJob,
  TrainCall,
  TrainEvent,
} from './types.ts'
export type { Job } from './worker.ts'
