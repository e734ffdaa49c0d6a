import { type Forecast, previewRows, type Question } from '../../sdk/index.ts'
import { $, busy, count, make, megabytes, notice, takesFiles } from './dom.ts'
import { type Job, type Lesson, trainerOf } from './lesson.ts'
import { current, loaded, parametersOf } from './model.ts'
import { type Points, pointNames } from './rewards.ts'
import { holdOut, parseRows, type RowValues } from './rows.ts'
import { LessonRunner } from './run.ts'
import { heldOutProblems, trainingProblems } from './sample.ts'
import { discarded, keepFiles, lessons } from './storage.ts'

/** Of the ready-made problems. */
const heldOut = 100
/** Layers of larger models are computed again on the way back, in place of keeping what they gave. */
const manyParameters = 50e6

type Kind = Job['kind']
const kinds: readonly Kind[] = ['sft', 'grpo', 'distill']
const formOf = (kind: Kind): HTMLFormElement => $<HTMLFormElement>(`${kind}-form`)

function field(form: HTMLFormElement, name: string): string {
  return (form.elements.namedItem(name) as HTMLInputElement | RadioNodeList).value
}
const number = (form: HTMLFormElement, name: string): number => Number(field(form, name))

/** The forms of the Teach tab, and the run that they start. */
export function wireTeach(onTaught: () => Promise<void>): { modelChanged(): Promise<void> } {
  let running = false
  const runner = new LessonRunner((now) => {
    running = now
    enable()
    if (!now) void onTaught()
  })
  const enable = () => {
    for (const kind of kinds)
      formOf(kind).querySelector<HTMLButtonElement>('[type=submit]')!.disabled = running || current.model === null
  }

  /** Rows and what is held back of them, as the form has it. */
  function dataOf(
    kind: 'sft' | 'grpo',
    needed: number,
  ): { rows: readonly RowValues[]; questions: readonly Question[] } {
    if (field(formOf(kind), 'data') === 'sample')
      return { rows: trainingProblems(needed).map((problem) => ({ ...problem })), questions: heldOutProblems(heldOut) }
    const { train, questions } = holdOut(parseRows($<HTMLTextAreaElement>(`${kind}-rows`).value))
    return { rows: train, questions }
  }

  /** What the form asks for. Throws where it does not make sense. */
  async function lessonOf(kind: Kind): Promise<Lesson> {
    const form = formOf(kind)
    const [name, steps, rank] = [field(form, 'name'), number(form, 'steps'), number(form, 'rank')]
    const peft = { r: rank, loraAlpha: 2 * rank, targetModules: 'all-linear' } as const
    const args = {
      // Each lesson has its own in the browser's storage, once it starts.
      outputDir: null,
      maxSteps: steps,
      learningRate: number(form, 'rate'),
      warmupSteps: Math.min(10, Math.floor(steps / 10)),
      lrSchedulerType: 'cosine',
      gradientCheckpointing: parametersOf(loaded()) > manyParameters,
      saveSteps: 10,
      saveTotalLimit: 1,
    } as const
    if (kind === 'grpo') {
      const [groups, tries] = [number(form, 'groups'), number(form, 'tries')]
      const { rows, questions } = dataOf('grpo', groups)
      const options = {
        trainDataset: rows,
        peft,
        args: {
          ...args,
          numGenerations: tries,
          // A question at a time through the model, all of them in a step.
          perDeviceTrainBatchSize: tries,
          gradientAccumulationSteps: groups,
          maxCompletionLength: number(form, 'tokens'),
        },
      }
      return { name, questions, job: { kind, options, points: pointsOf(form) } }
    }
    const size = number(form, 'batch')
    if (kind === 'distill') {
      const rows = parseRows((await $<HTMLInputElement>('distill-file').files?.[0]?.text()) ?? '')
      const teacher = `teachers/${name}`
      await keepFiles(teacher, [...($<HTMLInputElement>('teacher-files').files ?? [])])
      const options = { trainDataset: rows, teacher, peft, args: { ...args, perDeviceTrainBatchSize: size } }
      return { name, questions: [], job: { kind, options } }
    }
    const { rows, questions } = dataOf('sft', size * steps)
    const options = { trainDataset: rows, peft, args: { ...args, perDeviceTrainBatchSize: size } }
    return { name, questions, job: { kind, options } }
  }

  async function look(kind: Kind): Promise<void> {
    const told = formOf(kind).querySelector('.forecast')!
    const { model } = current
    if (model === null || running || !formOf(kind).checkValidity()) return
    try {
      const lesson = await lessonOf(kind)
      if (kind === 'sft') await preview(lesson)
      const { forecast } = await trainerOf(model, lesson.job).plan()
      told.replaceChildren(...forecastOf(forecast, model.model.target.info.memoryLimit))
      told.classList.remove('wrong')
    } catch (error) {
      if (running) return
      told.textContent = (error as Error).message
      told.classList.add('wrong')
      if (kind === 'sft') $('sft-preview').replaceChildren()
    }
  }

  async function preview({ job, questions }: Lesson): Promise<void> {
    const { examples, rows, tokens, scoredTokens, warnings, refusals } = await previewRows(
      loaded(),
      job.options.trainDataset,
    )
    const held = questions.length > 0 ? `, ${questions.length} more are held back for the test` : ''
    $('sft-preview').replaceChildren(
      make(
        'p',
        { class: 'hint' },
        `${count(rows)} rows, ${count(tokens)} tokens, ${count(scoredTokens)} of them learned${held}.`,
      ),
      ...[...refusals, ...warnings].map((text) => make('p', { class: 'wrong' }, text)),
      ...examples.map((row) => make('p', { class: 'code' }, ...row.map(token))),
    )
  }

  /** One look after another, and only at the newest state of a form. */
  let looking = Promise.resolve()
  const timers = new Map<Kind, ReturnType<typeof setTimeout>>()
  const lookSoon = (kind: Kind) => {
    clearTimeout(timers.get(kind))
    timers.set(
      kind,
      setTimeout(() => {
        looking = looking.then(() => look(kind))
      }, 300),
    )
  }

  for (const kind of kinds) {
    const form = formOf(kind)
    form.addEventListener('input', () => lookSoon(kind))
    form.addEventListener('submit', (event) => {
      event.preventDefault()
      const start = form.querySelector<HTMLButtonElement>('[type=submit]')!
      void busy(start, async () => {
        notice('')
        const lesson = await lessonOf(kind)
        await looking
        await runner.run(lesson, null)
      }).then(enable)
    })
    const rows = document.getElementById(`${kind}-rows`) as HTMLTextAreaElement | null
    if (rows)
      takesFiles(rows, form.querySelector<HTMLInputElement>('input[type=file]')!, async (file) => {
        rows.value = await file.text()
        lookSoon(kind)
      })
    for (const part of form.querySelectorAll<HTMLElement>('[data-for]'))
      form.addEventListener('input', () => {
        part.hidden = part.dataset.for !== field(form, 'data')
      })
  }
  for (const [kind, name] of [
    ['sft', 'lesson'],
    ['grpo', 'practice'],
    ['distill', 'pupil'],
  ] as const)
    (formOf(kind).elements.namedItem('name') as HTMLInputElement).value = name

  /** The first lesson that an earlier visit did not finish. */
  async function offer(): Promise<void> {
    const [left] = (await lessons()).unfinished
    $('unfinished').hidden = left === undefined
    if (left === undefined) return
    const [step] = left.points.main.at(-1) ?? [0]
    $('unfinished-text').textContent = `“${left.lesson.name}” was not finished: it came to step ${step}.`
    $('unfinished-discard').onclick = async () => {
      await discarded(left.lesson.name)
      await offer()
    }
    $('unfinished-resume').onclick = async () => {
      $('unfinished').hidden = true
      await looking
      await runner.run(left.lesson, left)
    }
  }

  return {
    async modelChanged() {
      enable()
      if (current.model === null) return
      await offer()
      for (const kind of ['sft', 'grpo'] as const) lookSoon(kind)
    },
  }
}

/** What the form gives points for. */
function pointsOf(form: HTMLFormElement): Points {
  const points = pointNames.map((name) => [name, field(form, name) === '' ? 0 : number(form, name)])
  return { ...(Object.fromEntries(points) as Omit<Points, 'words'>), words: field(form, 'words') }
}

/** Memory as a sentence and a bar. */
function forecastOf({ weights, optimizer, activations, total }: Forecast, limit: number): Node[] {
  const bar = make('span', { class: 'bar', 'aria-hidden': 'true' })
  for (const [part, bytes] of Object.entries({ weights, optimizer, activations })) {
    const piece = make('span', { class: part })
    piece.style.flexGrow = String(bytes)
    bar.append(piece)
  }
  const text = `Needs ${megabytes(total)} of ${megabytes(limit)}: weights ${megabytes(weights)}, gradients and moments ${megabytes(optimizer)}, activations ${megabytes(activations)}.`
  return [bar, make('span', {}, text)]
}

const token = ({ text, scored }: { text: string; scored: boolean }): HTMLElement =>
  make(scored ? 'mark' : 'span', { class: 'token' }, text.replace(/\n/g, '↵\n'))
