/** Every error that Halfling throws on purpose: the message names the thing and the remedy, `code` is for machines. */
export class HalflingError extends Error {
  readonly code: string
  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = new.target.name
    this.code = code
  }
}

/** Shapes, dtypes or attributes of an op do not fit. Names op, argument and both shapes. */
export class ShapeError extends HalflingError {
  constructor(message: string) {
    super('shape', message)
  }
}

/** A file is truncated, lies about itself, or holds what we do not read. Names file and tensor, key or line. */
export class FormatError extends HalflingError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('format', message, options)
  }
}

/** A row of data cannot be used. Names file and line. */
export class DataError extends HalflingError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('data', message, options)
  }
}

/** A wrong option or combination of options. Names the option and the nearest right one. */
export class OptionError extends HalflingError {
  constructor(message: string) {
    super('option', message)
  }
}

/** More memory is needed than the target has. Carries the forecast in the message. */
export class MemoryError extends HalflingError {
  constructor(message: string) {
    super('memory', message)
  }
}

/** A target cannot be had or failed: what was tried, and why not. */
export class DeviceError extends HalflingError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('device', message, options)
  }
}

/** A device went away: a driver was updated, a laptop slept, a Worker died. What it held must be made again. */
export class DeviceLostError extends DeviceError {
  override readonly code = 'device-lost'
}

/** A generation needs more positions than the model or the cache has. */
export class ContextError extends HalflingError {
  constructor(message: string) {
    super('context', message)
  }
}

/** A loss, gradient or weight became NaN or infinite, or a run ended as it began. Names step and, where known, the first tensor. */
export class NumericError extends HalflingError {
  constructor(message: string) {
    super('numeric', message)
  }
}

/** The hub or a URL does not give what is asked for: a wrong name, no access, no network, a content that is not the right one. */
export class HubError extends HalflingError {
  /** The HTTP status, where a server answered. */
  readonly status: number | undefined
  constructor(message: string, options?: { cause?: unknown; status?: number }) {
    super('hub', message, options)
    this.status = options?.status
  }
}

/** A teacher behind HTTP does not give what is asked for: no answer, a malformed one, another tokenizer. */
export class TeacherError extends HalflingError {
  constructor(message: string, options?: ErrorOptions) {
    super('teacher', message, options)
  }
}

/** A reward function threw, or gave no number for each completion. Names the function and shows the completion. */
export class RewardError extends HalflingError {
  constructor(message: string, options?: ErrorOptions) {
    super('reward', message, options)
  }
}

/** Reinforcement learning went nowhere for many steps: what collapsed, and the last checkpoint from before. */
export class CollapseError extends HalflingError {
  constructor(message: string) {
    super('collapse', message)
  }
}
