import { randomBits } from '../random.ts'

/** Keeps shuffles apart from other uses of a seed. */
const shuffleStream = 0x5f3c

/** The order of `count` rows in an epoch (from 0): a Fisher-Yates shuffle that depends on seed and epoch alone. */
export function epochOrder(count: number, seed: number, epoch: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i)
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor((randomBits(seed, shuffleStream, epoch, i) * (i + 1)) / 2 ** 32)
    ;[order[i], order[j]] = [order[j], order[i]]
  }
  return order
}
