// What the compute threads meet at after each call of a program.
// Control block, one cache line each: +0 arrived, +64 generation, +128 verdict, +192 abort flag (set by the caller's thread)
// +224 sleepers, and +256 parts of the call that are taken (common.ts). The last to arrive looks at the abort flag for all, so
// that all go on or all leave.

// Iterations (about a nanosecond each) before a thread sleeps. Waking it again costs 25 to 50 us, more than most calls of a
// decode step take: a decoded token of the 0.5B shape passes 430 barriers.
const SPIN: i32 = 50000

/** Waits for all threads; 1 when the run is to be left. */
export function barrier(control: usize, threads: i32): i32 {
  if (ASC_FEATURE_THREADS) {
    const generation = atomic.load<i32>(control, 64)
    if (atomic.add<i32>(control, 1) == threads - 1) {
      atomic.store<i32>(control, atomic.load<i32>(control, 192), 128)
      atomic.store<i32>(control, 0)
      atomic.store<i32>(control, 0, 256)
      atomic.add<i32>(control, 1, 64)
      // A thread that counts itself after this line finds the generation changed and does not sleep.
      if (atomic.load<i32>(control, 224) > 0) atomic.notify(control + 64, threads - 1)
    } else {
      for (let i = 0; i < SPIN; i++) if (atomic.load<i32>(control, 64) != generation) break
      if (atomic.load<i32>(control, 64) == generation) {
        atomic.add<i32>(control, 1, 224)
        while (atomic.load<i32>(control, 64) == generation) atomic.wait<i32>(control + 64, generation, -1)
        atomic.sub<i32>(control, 1, 224)
      }
    }
    return atomic.load<i32>(control, 128)
  }
  return 0
}
