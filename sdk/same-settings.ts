import { OptionError } from './errors.ts'

// What was begun with some settings goes on with the same alone.

/** The keys whose values are not the same in JSON: those of `now` in their order, then what only `before` has. */
export function differingKeys<T extends object>(before: T, now: T): (keyof T)[] {
  const keys = Object.keys({ ...now, ...before }) as (keyof T)[]
  return keys.filter((key) => JSON.stringify(before[key]) !== JSON.stringify(now[key]))
}

/** Throws OptionError naming the first setting that differs from those with which `place` was begun. */
export function checkSameSettings<T extends object>(place: string, before: T, now: T): void {
  const [key] = differingKeys(before, now)
  if (key === undefined) return
  const [was, is] = [before, now].map((settings) => JSON.stringify(settings[key]))
  throw new OptionError(
    `${place}: holds a run with another ${String(key)} (${was}, now ${is}): give the same, or another output, or delete it`,
  )
}
