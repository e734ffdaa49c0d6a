import { loraDefaults } from '../model/lora.ts'
import { defaultLearningRate, trainingDefaults } from '../train/arguments.ts'
import { rowDefaults } from '../train/rows.ts'
import { configSection } from './config-file.ts'
import { fixedKeys, loraKeys, runKeys, type SftSettings, trainerKeys } from './sft-keys.ts'

const { r, targetModules, modulesToSave, rankPattern, alphaPattern, ...lora } = loraDefaults

/** What holds where nothing is said, of every key that has such a value. */
export const sftDefaults: SftSettings = {
  model: 'nano',
  full: false,
  resume: false,
  device: 'auto',
  dtype: 'auto',
  learningRate: defaultLearningRate.lora,
  ...trainingDefaults,
  ...rowDefaults,
  completionOnlyLoss: true,
  assistantOnlyLoss: true,
  loraR: r,
  loraTargetModules: targetModules as string,
  ...lora,
  modulesToSave: [...modulesToSave],
  rankPattern,
  alphaPattern,
}

const examples: SftSettings = {
  adapter: 'out',
  data: 'rows.jsonl',
  evalData: 'held-out.jsonl',
  outputDir: 'out',
  threads: 2,
  columns: { question: 'problem', answer: 'solution' },
  bf16: false,
  fp16: false,
  lossType: 'nll',
  optim: 'adamw_torch',
  taskType: 'CAUSAL_LM',
  reportTo: 'none',
}

/** These settings as a YAML file that holds and explains every key. */
export function sftConfigFile(settings: SftSettings): string {
  const { outputDir, ...training } = trainerKeys
  const sections = [
    { heading: 'What trains, on what', keys: { ...runKeys, outputDir } },
    { heading: 'How it trains', keys: training },
    { heading: 'The adapter', keys: loraKeys },
    { heading: 'Keys of TRL with one meaning here: accepted so that its files run as they are', keys: fixedKeys },
  ]
  return `# Settings of a fine-tuning run: npx halfling sft --config sft.yaml
# A key behind a # shows what holds without it, or an example. Flags win over this file. learningRate is the same as
# learning_rate.

${sections.map(({ heading, keys }) => configSection(heading, keys, settings, sftDefaults, examples)).join('\n')}`
}
