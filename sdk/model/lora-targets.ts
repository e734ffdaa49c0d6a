import { OptionError } from '../errors.ts'
import type { LoraConfig } from '../formats/lora-config.ts'
import { waysToMatch } from '../pattern.ts'
import { adaptable, isTableModule } from './adapter.ts'
import type { ModelConfig } from './config.ts'
import { embeddingModule, outputModule, outputName, weightShapes } from './names.ts'

// PEFT's matching of module names (check_target_module_exists, get_pattern_key, _set_trainable).

export interface LoraTarget {
  readonly rank: number
  readonly alpha: number
}

/** Ways to match: above what unsloth writes (460,000), below what takes for ever. */
const maxWays = 2 ** 19

/**
 * The modules that a config adapts, by path: linear ones, and where they are named the embedding and the output layer.
 *
 * @throws OptionError for a target that the model does not have, and for a pattern that matches nothing; the message names what can be
 *   targeted
 */
export function resolveTargets(config: LoraConfig, c: ModelConfig): Map<string, LoraTarget> {
  const { targetModules } = config
  const linear = [...adaptable(c).keys()]
  const can = `linear modules are ${[...new Set(linear.map(lastName))].join(', ')}`
  const allLinear = typeof targetModules === 'string' && targetModules.toLowerCase() === 'all-linear'
  const wanted = allLinear ? () => true : matcher('targetModules', targetModules)
  const excluded = matcher('excludeModules', config.excludeModules ?? [])
  const saved = config.modulesToSave.map((name) => regExp('modulesToSave', name, '(^|.*\\.)', '($|\\..*)'))
  const left = (path: string) => wanted(path) && !excluded(path) && !saved.some((pattern) => pattern.test(path))

  const all = allLinear ? linear : [...linear, embeddingModule, outputModule]
  if (typeof targetModules !== 'string')
    for (const name of targetModules)
      if (!all.some((path) => endsWithName(path, name)))
        throw new OptionError(`targetModules: this model has no linear module "${name}" (${can})`)
  const inLayer = layerFilter(config)
  const paths = all.filter((path) => left(path) && inLayer(path))
  if (paths.length === 0)
    throw new OptionError(
      `targetModules: ${JSON.stringify(targetModules)} matches no module (${can}; a list holds names, a text is a regular expression over the whole path, such as '.*\\.q_proj')`,
    )
  const rankOf = patternLookup('rankPattern', config.rankPattern, config.r)
  const alphaOf = patternLookup('alphaPattern', config.alphaPattern, config.loraAlpha)
  return new Map(paths.map((path) => [path, { rank: rankOf(path), alpha: alphaOf(path) }]))
}

/** Throws OptionError for targets that are loaded and merged, and not trained: the tables of the vocabulary. */
export function checkTrainable(paths: Iterable<string>): void {
  for (const path of paths)
    if (isTableModule(path))
      throw new OptionError(
        `targetModules: ${path} cannot train as a LoRA adapter, which is read and merged only; train it as a whole with modulesToSave: ['${lastName(path)}']`,
      )
}

/**
 * Names and shapes of the weights that modules_to_save copies: all those below a module whose path ends with one of its names.
 * Of two tied tables PEFT copies the one that is named: `lm_head.weight` is here even where the model ties it.
 *
 * @throws OptionError for a name that no module has
 */
export function savedWeights(config: LoraConfig, c: ModelConfig): Map<string, readonly number[]> {
  const shapes = weightShapes(c)
  shapes.set(outputName, [c.vocabSize, c.hiddenSize])
  const saved = new Map<string, readonly number[]>()
  for (const module of config.modulesToSave) {
    const matching = [...shapes].filter(([name]) => module !== '' && modulesAbove(name).some((m) => m.endsWith(module)))
    if (matching.length === 0)
      throw new OptionError(
        `modulesToSave: this model has no module "${module}" (it has ${[...new Set([...shapes.keys()].map((name) => lastName(modulesAbove(name)[0])))].join(', ')})`,
      )
    for (const [name, shape] of matching) saved.set(name, shape)
  }
  return saved
}

/** `model.norm.weight` -> model.norm, model */
function modulesAbove(weight: string): string[] {
  const parts = weight.split('.')
  return parts.slice(0, -1).map((_, i) => parts.slice(0, parts.length - 1 - i).join('.'))
}

const lastName = (path: string): string => path.slice(path.lastIndexOf('.') + 1)
const endsWithName = (path: string, name: string): boolean => path === name || path.endsWith(`.${name}`)

/** A list matches whole names at the end of the path, a text is a regular expression over the whole path. */
function matcher(option: string, given: readonly string[] | string): (path: string) => boolean {
  if (typeof given !== 'string') return (path) => given.some((name) => endsWithName(path, name))
  if (given === '') return () => false
  const pattern = regExp(option, given)
  return (path) => pattern.test(path)
}

/** layers_to_transform counts for names that are path endings, not for whole paths. */
function layerFilter({ targetModules, layersToTransform, layersPattern }: LoraConfig): (path: string) => boolean {
  if (typeof targetModules === 'string' || !layersToTransform || layersToTransform.length === 0) return () => true
  const patterns = layersPattern?.length
    ? layersPattern.map((name) => regExp('layersPattern', name, '(?:.*?\\.)??', '\\.(?<layer>\\d+)\\..*'))
    : [/^.*?\.[^.]*\.(?<layer>\d+)\./]
  return (path) => {
    if (targetModules.includes(path)) return true
    const match = patterns.map((pattern) => pattern.exec(path)).find((m) => m !== null)
    return match !== undefined && layersToTransform.includes(Number(match?.groups?.layer))
  }
}

/** The value of the first key that matches the end of the path. */
function patternLookup(
  option: string,
  values: Readonly<Record<string, number>>,
  otherwise: number,
): (path: string) => number {
  const patterns = Object.entries(values).map(([key, value]) => [regExp(option, key, '(?:.*\\.)?'), value] as const)
  return (path) => patterns.find(([pattern]) => pattern.test(path))?.[1] ?? otherwise
}

/** Python's pattern, anchored at both ends, as JavaScript writes it. */
function regExp(option: string, source: string, before = '', after = ''): RegExp {
  const own = source.replaceAll('(?P<', '(?<').replaceAll('\\Z', '$')
  if (!(waysToMatch(own) <= maxWays))
    throw new OptionError(
      `${option}: ${JSON.stringify(source.slice(0, 60))}: a repetition in a repetition, or too many of them, could take for ever: write a list of names`,
    )
  try {
    const pattern = new RegExp(`^${before}(?:${own})${after}$`)
    // Only now V8 sees that one is too large.
    pattern.test('')
    return pattern
  } catch (cause) {
    throw new OptionError(
      `${option}: ${JSON.stringify(source)} is no regular expression that JavaScript reads: ${(cause as Error).message}`,
    )
  }
}
