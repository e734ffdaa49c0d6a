import type { Command } from 'commander'
import { loadModel } from '../../load.ts'
import { grpoConfig } from '../../train/config.ts'
import { GRPOTrainer } from '../../train/grpo.ts'
import type { ScoredRollout } from '../../train/rewarded.ts'
import type { TrainLog } from '../../train/run.ts'
import { grpoKeys } from '../keys.ts'
import { LiveBlock } from '../live.ts'
import { readMetrics } from '../metrics.ts'
import { log, print, printJson } from '../output.ts'
import { loadRewards } from '../rewards.ts'
import { bestAndWorst, drawCurves } from '../rollouts.ts'
import type { Settings } from '../settings.ts'
import { addTraining, type Training } from '../train.ts'

type GrpoSettings = Settings<typeof grpoKeys>

export function addGrpo(program: Command): void {
  const command = program
    .command('grpo')
    .description('reinforcement learning from rewards of its own answers; keys are those of sft and TRL’s GRPO')
  let latest: readonly ScoredRollout[] = []
  const onRollouts = (rollouts: readonly ScoredRollout[]) => {
    latest = rollouts
  }

  const prepare = async ({ model, device, threads, build, rolloutDtype, rewardFuncs = ['accuracy'] }: GrpoSettings) => {
    const rewards = await loadRewards(rewardFuncs)
    return async ({ options, signal, follow }: Training<typeof grpoConfig>) => {
      const rolloutModel =
        rolloutDtype && (await loadModel(model, { dtype: rolloutDtype, device, threads, build, signal }))
      try {
        // Its warnings are lines of the log.
        const own = { rewardFuncs: rewards, rolloutModel, onRollouts, onWarning: undefined }
        const trainer = new GRPOTrainer({ ...options, ...own })
        await follow((at) => withCurves(trainer.train(at), () => latest))
      } finally {
        await rolloutModel?.close()
      }
    }
  }

  const printResult = async (outputDir: string, json: boolean) => {
    const steps = (await readMetrics(outputDir)).flatMap((line) => ('loss' in line ? [line] : []))
    if (json) return printJson({ ...steps.at(-1), outputDir })
    print(drawCurves(steps, process.stdout.columns || 80).join('\n'))
    for (const line of bestAndWorst(latest)) log(line)
    const [first, last] = [steps[0], steps.at(-1)].map((step) => step?.reward?.toPrecision(3) ?? 'none')
    print(`reward ${first} -> ${last}, saved in ${outputDir}`)
  }

  addTraining(command, grpoKeys, grpoConfig, ['data', 'outputDir'], prepare, printResult)
}

/** The lines of a run, with its curves and completions below them in a terminal. */
async function* withCurves(
  lines: AsyncIterable<TrainLog>,
  latest: () => readonly ScoredRollout[],
): AsyncGenerator<TrainLog, void> {
  const live = process.stderr.isTTY ? new LiveBlock() : null
  const steps: Extract<TrainLog, { loss: number }>[] = []
  for await (const line of lines) {
    if ('loss' in line) steps.push(line)
    live?.clear()
    yield line
    live?.draw([...drawCurves(steps, process.stderr.columns || 80), ...bestAndWorst(latest())])
  }
}
