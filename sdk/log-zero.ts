/**
 * Stands for log 0, for every target: finite, since WGSL may assume that nothing is infinite, and exp of it is 0. A log is one of
 * something where it is above a tenth of this. Read by TypeScript and by AssemblyScript.
 */
export const LOG_ZERO = -1e30
