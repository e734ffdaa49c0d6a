// Every kernel that the calls of targets/wasm/lower name: one line a file, kernels only (helpers live in common and math).
export * from './barrier'
export * from './linear'
export * from './dora'
export * from './vocab'
