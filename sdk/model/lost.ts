import type { Model } from './model.ts'

// Work that is done again from its beginning when the device is lost under it. The same work gives the same numbers.

/** So many devices may be lost one after the other without anything having come of it. */
export const patience = 3

/** Throws the error, or returns once the model is on another device: not in a training, whose trainer does that. */
async function recover(model: Model, error: unknown, device: Model['target'], losses: number): Promise<void> {
  if (model.isTraining || losses > patience) throw error
  await model.recover(error, device)
}

/** Work that leaves nothing behind on the device. */
export async function surviving<T>(model: Model, work: () => Promise<T>): Promise<T> {
  for (let losses = 1; ; losses++) {
    const device = model.target
    try {
      return await work()
    } catch (error) {
      await recover(model, error, device, losses)
    }
  }
}

/** What is handed out piece by piece: after a loss it begins anew, and what was handed out already is passed over. */
export async function* survivingPieces<T>(model: Model, begin: () => AsyncGenerator<T, void>): AsyncGenerator<T, void> {
  let given = 0
  for (let losses = 1; ; losses++) {
    const device = model.target
    let made = 0
    try {
      for await (const piece of begin()) {
        if (made++ < given) continue
        given++
        losses = 0
        yield piece
      }
      return
    } catch (error) {
      await recover(model, error, device, losses)
    }
  }
}
