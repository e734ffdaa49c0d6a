// What stands between two steps of a run: an input's slice put in its place, an output carried to an input or collected.
// One thread does it, between two barriers.

export function move(to: usize, from: usize, bytes: usize): void {
  memory.copy(to, from, bytes)
}
