import { access } from 'node:fs/promises'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { OptionError } from '../errors.ts'
import { accuracyReward } from '../rewards/accuracy.ts'
import { formatReward } from '../rewards/format.ts'
import { lengthReward } from '../rewards/length.ts'
import { repetitionPenalty } from '../rewards/repetition.ts'
import type { RewardFunction } from '../rewards/reward.ts'

const known: Readonly<Record<string, RewardFunction>> = {
  accuracy: accuracyReward,
  format: formatReward,
  length: lengthReward,
  repetition: repetitionPenalty(),
}

/** Reward functions by name, or all that files export. Throws OptionError. */
export async function loadRewards(names: readonly string[]): Promise<RewardFunction[]> {
  return (await Promise.all(names.map((name) => (Object.hasOwn(known, name) ? known[name] : fromFile(name))))).flat()
}

async function fromFile(name: string): Promise<RewardFunction[]> {
  const path = resolve(name)
  const names = Object.keys(known).join(', ')
  await access(path).catch(() => {
    throw new OptionError(`rewardFuncs: ${name} is neither a file nor one of ${names}`)
  })
  let module: Record<string, unknown>
  try {
    module = await import(pathToFileURL(path).href)
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'ERR_UNKNOWN_FILE_EXTENSION' && /\.[mc]?ts$/.test(path))
      throw new OptionError(
        `rewardFuncs: ${name}: Node ${process.versions.node} does not read TypeScript: use Node 22.18 or later, or write it in JavaScript`,
      )
    throw new OptionError(`rewardFuncs: ${name} cannot be loaded: ${message}`)
  }
  const functions = Object.values(module).filter((value): value is RewardFunction => typeof value === 'function')
  if (functions.length === 0) throw new OptionError(`rewardFuncs: ${name} exports no function`)
  return functions
}
