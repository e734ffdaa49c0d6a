// What the compute threads meet at after each call of a program.
// Control block, one cache line each: +0 arrived, +64 generation, +128 verdict, +192 abort flag (set by the caller's
// thread). The last to arrive looks at the abort flag for all, so that all go on or all leave.

// Iterations (about a nanosecond each) before a thread sleeps: long enough for the tail of a balanced kernel, short
// enough not to steal an oversubscribed core.
const SPIN: i32 = 4000

/** Waits for all threads; 1 when the run is to be left. */
export function barrier(control: usize, threads: i32): i32 {
  if (ASC_FEATURE_THREADS) {
    const generation = atomic.load<i32>(control, 64)
    if (atomic.add<i32>(control, 1) == threads - 1) {
      atomic.store<i32>(control, atomic.load<i32>(control, 192), 128)
      atomic.store<i32>(control, 0)
      atomic.add<i32>(control, 1, 64)
      if (threads > 1) atomic.notify(control + 64, threads - 1)
    } else {
      for (let i = 0; i < SPIN; i++) if (atomic.load<i32>(control, 64) != generation) break
      while (atomic.load<i32>(control, 64) == generation) atomic.wait<i32>(control + 64, generation, -1)
    }
    return atomic.load<i32>(control, 128)
  }
  return 0
}
