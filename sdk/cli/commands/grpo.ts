import type { Command } from 'commander'
import { loadModel } from '../../load.ts'
import { GRPOTrainer } from '../../train/grpo.ts'
import { type GRPOConfig, grpoDefaults } from '../../train/grpo-arguments.ts'
import type { TrainLog } from '../../train/loop.ts'
import type { ScoredRollout } from '../../train/rewarded.ts'
import { grpoKeys, grpoTrainerKeys } from '../grpo-keys.ts'
import { interruptible } from '../interrupt.ts'
import { LiveBlock } from '../live.ts'
import { readMetrics } from '../metrics.ts'
import { withModel } from '../open-model.ts'
import { addJson } from '../options.ts'
import { log, print, printJson } from '../output.ts'
import { loadRewards } from '../rewards.ts'
import { bestAndWorst, drawCurves } from '../rollouts.ts'
import { addFlags, readSettings } from '../settings.ts'
import { sftDefaults } from '../sft-defaults.ts'
import { aliases } from '../sft-keys.ts'
import { missing, only, showTraining, whatTrains } from '../train.ts'

export function addGrpo(program: Command): void {
  const command = program
    .command('grpo')
    .description('reinforcement learning from rewards of its own answers; keys are those of sft and TRL’s GRPO')
  addFlags(command, grpoKeys, { ...sftDefaults, ...grpoDefaults, learningRate: 1e-5 })
  addJson(command).action(async (flags: Record<string, unknown>) => {
    const settings = readSettings(flags, grpoKeys, aliases)
    const { data, evalData, outputDir, full, resume, rewardFuncs = ['accuracy'], rolloutDtype } = settings
    if (data === undefined) throw missing('data')
    if (outputDir === undefined) throw missing('outputDir')
    const peft = whatTrains(settings)
    const dtype = settings.dtype ?? (full ? 'f32' : undefined)
    const evalStrategy = settings.evalStrategy ?? (evalData === undefined ? undefined : 'epoch')
    const args = { ...only(settings, grpoTrainerKeys), outputDir, evalStrategy } as GRPOConfig
    const rewards = await loadRewards(rewardFuncs)
    let latest: readonly ScoredRollout[] = []
    await interruptible((signal) =>
      withModel({ ...settings, dtype }, signal, async (model) => {
        const { model: name, device, threads } = settings
        const rolloutModel = rolloutDtype && (await loadModel(name, { dtype: rolloutDtype, device, threads, signal }))
        try {
          const trainer = new GRPOTrainer({
            model,
            trainDataset: data,
            evalDataset: evalData,
            rewardFuncs: rewards,
            peft,
            rolloutModel,
            args,
            onRollouts: (rollouts) => {
              latest = rollouts
            },
          })
          const live = process.stderr.isTTY ? new LiveBlock() : null
          const steps: Extract<TrainLog, { loss: number }>[] = []
          const watch = async function* (lines: AsyncIterable<TrainLog>) {
            for await (const line of lines) {
              if ('loss' in line) steps.push(line)
              live?.clear()
              yield line
              live?.draw([...drawCurves(steps, process.stderr.columns || 80), ...bestAndWorst(latest)])
            }
          }
          await showTraining((onProgress) => watch(trainer.train({ resume, signal, onProgress })), outputDir)
        } finally {
          await rolloutModel?.close()
        }
      }),
    )
    const lines = await readMetrics(outputDir)
    const steps = lines.flatMap((line) => ('loss' in line ? [line] : []))
    if (flags.json === true) return printJson({ ...steps.at(-1), outputDir })
    print(drawCurves(steps, process.stdout.columns || 80).join('\n'))
    for (const line of bestAndWorst(latest)) log(line)
    print(
      `reward ${steps[0]?.reward?.toPrecision(3)} -> ${steps.at(-1)?.reward?.toPrecision(3)}, saved in ${outputDir}`,
    )
  })
}
