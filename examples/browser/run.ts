import { type Evaluation, evaluate, type ScoredRollout, type TrainLog } from '../../sdk/index.ts'
import { Chart } from './chart.ts'
import { answer } from './chat.ts'
import { $, count, make, megabytes, notice, percent } from './dom.ts'
import { type Job, type Lesson, trainerOf } from './lesson.ts'
import { loaded } from './model.ts'
import { begun, discarded, finished, freeName, type Points, reached, type Unfinished } from './storage.ts'

const titles = { sft: 'Learning from examples', grpo: 'Learning from rewards', distill: 'Learning from a teacher' }
/** Held-out accuracy is measured so often on the way. */
const checks = 5

/** Runs lessons, one at a time, and shows how they go. */
export class LessonRunner {
  private readonly onChange: (running: boolean) => void
  private controller: AbortController | null = null
  private paused = false
  /** Steps done. */
  private reached = 0
  private goOn = () => {}

  constructor(onChange: (running: boolean) => void) {
    this.onChange = onChange
    $('pause').addEventListener('click', () => this.setPaused(!this.paused))
    $('cancel').addEventListener('click', () => {
      $('run-status').textContent = 'Cancelling …'
      this.controller?.abort()
      this.goOn()
    })
  }

  private setPaused(paused: boolean): void {
    this.paused = paused
    $('pause').textContent = paused ? 'Resume' : 'Pause'
    if (!paused) this.goOn()
  }

  /** Waits where a person has paused. */
  private async waiting(step: number): Promise<void> {
    if (!this.paused || this.controller!.signal.aborted) return
    $('run-status').textContent = `Paused after step ${step}. You can chat with it as it is now.`
    await new Promise<void>((resolve) => {
      this.goOn = resolve
    })
  }

  /** Teaches the lesson, or goes on with it from an `earlier` visit. What goes wrong is shown. */
  async run(asked: Lesson, earlier: Unfinished | null): Promise<void> {
    const model = loaded()
    const controller = new AbortController()
    this.controller = controller
    this.setPaused(false)
    this.reached = 0
    this.onChange(true)
    const active = [...model.model.activeAdapters]
    const status = (text: string) => {
      $('run-status').textContent = text
    }
    const lesson = earlier ? asked : await named(asked)
    this.show(lesson)
    try {
      // A lesson starts from the bare model.
      await model.setAdapters([])
      status('Measuring what it can do now …')
      const before = earlier ? earlier.before : await this.test(lesson, controller.signal)
      if (!earlier) await begun(lesson, before)
      const after = await this.learn(lesson, before, earlier?.points ?? null, controller.signal)
      await this.keep(lesson.name)
      await finished(lesson.name)
      const gain =
        before && after
          ? `: ${percent(before.accuracy)} of the test right before, ${percent(after.accuracy)} after`
          : ''
      status(`Done${gain}. The adapter “${lesson.name}” is on.`)
      if (before && after) this.compare(before, after)
    } catch (error) {
      const cancelled = controller.signal.aborted
      if (!cancelled) notice((error as Error).message)
      status(cancelled ? 'Cancelled: the model is as it was before.' : 'It stopped. What went wrong stands above.')
      // What broke on the way is offered again, from its last checkpoint.
      if (cancelled || (this.reached === 0 && !earlier)) await discarded(lesson.name)
      await model.setAdapters(active).catch(() => {})
    } finally {
      this.controller = null
      $('run').classList.add('ended')
      if ($('run').contains(document.activeElement)) $('run-title').focus({ preventScroll: true })
      $('pause').hidden = true
      $('cancel').hidden = true
      this.onChange(false)
    }
  }

  private test({ questions }: Lesson, signal: AbortSignal): Promise<Evaluation> | null {
    return questions.length === 0 ? null : evaluate(loaded(), questions, { grader: 'exact', maxNewTokens: 128, signal })
  }

  private show({ job }: Lesson): void {
    $('run').hidden = false
    $<HTMLDetailsElement>('preview').open = false
    $('run').classList.remove('ended')
    $('run-title').textContent = titles[job.kind]
    for (const id of ['pause', 'cancel']) $(id).hidden = false
    for (const id of ['answers', 'rollouts', 'run-warning']) $(id).hidden = true
    $<HTMLProgressElement>('run-progress').value = 0
    $('pause').focus({ preventScroll: true })
    $('run').scrollIntoView({ block: 'start' })
  }

  private async learn(
    lesson: Lesson,
    before: Evaluation | null,
    earlier: Points | null,
    signal: AbortSignal,
  ): Promise<Evaluation | null> {
    const { kind } = lesson.job
    const main =
      kind === 'grpo'
        ? new Chart({ title: 'Mean reward', format: short, range: [0, 0.1] })
        : new Chart({ title: 'Loss', format: short, range: [0, 0.1] })
    const second =
      kind === 'grpo'
        ? new Chart({ title: 'Tokens a try', format: (v) => v.toFixed(0), range: [0, 10] })
        : before && new Chart({ title: 'Test, share right', format: percent, range: [0, 1], dots: true })
    $('charts').replaceChildren(main.figure, ...(second ? [second.figure] : []))

    const points: Points = { main: [], second: [] }
    if (before && !earlier && kind !== 'grpo') points.second.push([0, before.accuracy])
    const logs = trainerOf(loaded(), lesson.job, {
      onWarning(warning) {
        $('run-warning').textContent = warning
        $('run-warning').hidden = false
      },
      onRollouts: showTries,
    }).train({
      resume: earlier !== null,
      signal,
      onProgress(progress) {
        if (progress.phase === 'ready')
          $('run-status').textContent =
            `${progress.totalSteps} steps, ${megabytes(progress.forecast.total)} of memory …`
      },
    })
    let [after, first, started]: [Evaluation | null, number, number] = [null, 0, performance.now()]
    for await (const log of logs) {
      if (!('loss' in log)) continue
      if (first === 0) {
        first = log.step
        started = performance.now()
        for (const key of ['main', 'second'] as const)
          points[key].push(...(earlier?.[key] ?? []).filter(([step]) => step < log.step))
      }
      this.reached = log.step
      const shown = kind === 'grpo' ? log.reward : log.loss
      if (shown !== undefined) points.main.push([log.step, shown])
      if (kind === 'grpo') points.second.push([log.step, log.meanLength!])
      const last = log.step === log.totalSteps
      main.set(points.main, log.totalSteps)
      $<HTMLProgressElement>('run-progress').value = log.step / log.totalSteps
      $('run-status').textContent = lineOf(log, (performance.now() - started) / Math.max(1, log.step - first))
      if (before && kind !== 'grpo' && (last || log.step % Math.ceil(log.totalSteps / checks) === 0)) {
        after = await this.test(lesson, signal)
        points.second.push([log.step, after!.accuracy])
      }
      second?.set(points.second, log.totalSteps)
      reached(lesson.name, points)
      await this.waiting(log.step)
    }
    if (kind === 'grpo' && before) after = await this.test(lesson, signal)
    return after
  }

  /** Held-out questions that it learned, then others. */
  private compare(before: Evaluation, after: Evaluation): void {
    const pairs = before.items.map((item, i) => [item, after.items[i]] as const)
    const learned = pairs.filter(([then, now]) => !then.correct && now.correct)
    const rest = pairs.filter((pair) => !learned.includes(pair))
    const cell = (when: string, { text, correct }: Evaluation['items'][number]) =>
      make(
        'td',
        { 'data-when': when },
        make('strong', { class: correct ? 'right' : 'wrong' }, correct ? '✓ right' : '✗ wrong'),
        ...answer(text),
      )
    $('answers').hidden = false
    $('answers-rows').replaceChildren(
      ...[...learned.slice(0, 3), ...rest]
        .slice(0, 4)
        .map(([then, now]) =>
          make(
            'tr',
            {},
            make('th', { scope: 'row' }, then.question, make('span', { class: 'hint' }, ` It is ${then.gold}.`)),
            cell('Before', then),
            cell('After', now),
          ),
        ),
    )
  }

  /** The new adapter under the lesson's name. */
  private async keep(name: string): Promise<void> {
    const model = loaded()
    await model.renameAdapter(model.model.activeAdapters.at(-1)!, name)
  }
}

/** The lesson under a name of its own, with a folder of that name. */
async function named(lesson: Lesson): Promise<Lesson> {
  const name = await freeName(lesson.name)
  const { options } = lesson.job
  const args = { ...options.args, outputDir: `runs/${name}` }
  return { ...lesson, name, job: { ...lesson.job, options: { ...options, args } } as Job }
}

const short = (value: number): string => {
  const size = Math.abs(value)
  return value === 0 ? '0' : size >= 100 ? value.toFixed(0) : size >= 0.1 ? value.toFixed(2) : value.toFixed(3)
}

function lineOf(log: Extract<TrainLog, { loss: number }>, millisecondsAStep: number): string {
  const left = Math.round(((log.totalSteps - log.step) * millisecondsAStep) / 1000)
  const score = log.reward === undefined ? `loss ${short(log.loss)}` : `reward ${short(log.reward)}`
  const time = left > 90 ? `${Math.round(left / 60)} min left` : `${left} s left`
  return `Step ${log.step} of ${log.totalSteps}, ${score}, ${count(Math.round(log.tokensPerSecond))} tokens a second, ${time}`
}

/** Those of one question. */
function showTries(rollouts: readonly ScoredRollout[]): void {
  // The group with the widest spread of rewards is the one to learn from.
  const groups = [...new Set(rollouts.map(({ group }) => group))].map((own) =>
    rollouts.filter(({ group }) => group === own),
  )
  const spread = (group: typeof rollouts) => Math.max(...group.map(({ advantage }) => Math.abs(advantage)))
  const [group] = groups.sort((a, b) => spread(b) - spread(a))
  const { prompt } = group[0]
  $('rollouts').hidden = false
  $('rollouts-question').textContent = typeof prompt === 'string' ? prompt : String(prompt.at(-1)!.content)
  $('rollouts-list').replaceChildren(
    ...[...group]
      .sort((a, b) => b.reward - a.reward)
      .map(({ completion, reward, advantage }) =>
        make(
          'li',
          {},
          make('span', { class: 'reward' }, reward.toFixed(2)),
          make('span', { class: 'grow' }, completion.replace(/\s+/g, ' ').trim() || '(nothing)'),
          make(
            'span',
            { class: 'hint' },
            advantage > 0.01 ? 'more of this' : advantage < -0.01 ? 'less of this' : 'as good as the rest',
          ),
        ),
      ),
  )
}
