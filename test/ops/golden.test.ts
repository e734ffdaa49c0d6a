import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { elementCount } from '../../sdk/dtype.ts'
import { Graph, gradientName, type Tensor } from '../../sdk/graph/graph.ts'
import { toProgram } from '../../sdk/graph/program.ts'
import {
  adamw,
  add,
  div,
  doraNorm,
  fill,
  gradient,
  linear,
  lora,
  mul,
  scale,
  scaleColumns,
  segmentSum,
  sum,
  sumSquares,
  view,
  vocabPick,
} from '../../sdk/ops/index.ts'
import { relativeError } from '../../sdk/self-test.ts'
import { groupAdvantages } from '../../sdk/train/advantages.ts'
import { distillation, pickFrom, policy } from '../../sdk/train/objectives.ts'
import { runReference } from '../../targets/reference/index.ts'

// Ops and objectives against tables made by PyTorch, PEFT and TRL (README beside the tables).
const tables = join(process.env.HALFLING_GOLDEN ?? '../shared/golden', 'tables')
// biome-ignore lint/suspicious/noExplicitAny: the tables' layouts are theirs
const table = (name: string): any => JSON.parse(readFileSync(join(tables, name), 'utf8'))
const described = (name: string, body: () => void) =>
  existsSync(join(tables, name)) ? describe(name, body) : it.skip(`golden ${name}: not in ${tables}`)

type Arrays = Record<string, Float64Array>
type Nested = number | Nested[]
const numbers = (values: Nested): number[] => (typeof values === 'number' ? [values] : values.flatMap(numbers))
const flat = (values: Nested): Float64Array => Float64Array.from(numbers(values))
const f32 = (...shape: number[]) => ({ dtype: 'f32' as const, shape })
const i32 = (...shape: number[]) => ({ dtype: 'i32' as const, shape })

/** Loss and gradients of `wrt`, on the reference. */
function differentiate(
  build: (g: Graph) => { loss: Tensor; wrt?: Tensor[]; outputs?: Record<string, Tensor> },
  inputs: Arrays,
  bound: Arrays = {},
): Arrays {
  const g = new Graph()
  const { loss, wrt = [], outputs = {} } = build(g)
  gradient(g, [[loss, fill(g, [1], 1)]], { wrt }).forEach((grad, i) => {
    g.output(`d ${wrt[i].name}`, grad!)
  })
  for (const [name, t] of Object.entries({ ...outputs, loss })) g.output(name, t)
  const p = toProgram(g, 'golden')
  for (const t of p.tensors) if (t.kind === 'state') bound[t.name] ??= new Float64Array(elementCount(t.shape))
  return { ...runReference(p, inputs, bound), ...bound }
}

const close = (got: Float64Array, want: Nested, tolerance = 2e-6) =>
  expect(relativeError(got, flat(want))).toBeLessThan(tolerance)

described('lora_peft.json', () => {
  for (const c of table('lora_peft.json').cases)
    it(c.kind, () => {
      const [[o, i], r, n] = [[c.W.length, c.W[0].length], c.r, c.x.length]
      const build = (g: Graph) => {
        const x = g.input('x', f32(n, i))
        const w = g.weight('W', f32(o, i))
        const bias = g.weight('bias', f32(o))
        const [a, b] = [g.weight('A', f32(r, i), true), g.weight('B', f32(o, r), true)]
        const s = g.input('scale', f32(1))
        let y: Tensor
        if (c.kind === 'dora') {
          const gain = div(g, g.weight('magnitude', f32(o), true), doraNorm(g, w, a, b, s))
          y = scaleColumns(g, lora(g, linear(g, x, w), x, a, b, s)[0], gain, bias)
        } else y = lora(g, linear(g, x, w, bias), x, a, b, s)[0]
        return { loss: sum(g, mul(g, y, y)), outputs: { y } }
      }
      const inputs = {
        x: flat(c.x),
        scale: Float64Array.of(c.kind === 'rslora' ? c.alpha / Math.sqrt(r) : c.alpha / r),
      }
      const bound: Arrays = { W: flat(c.W), bias: flat(c.bias), A: flat(c.A), B: flat(c.B) }
      if (c.magnitude) bound.magnitude = flat(c.magnitude)
      const got = differentiate(build, inputs, bound)
      close(got.y, c.y)
      close(got[gradientName('A')], c.grads_of_sum_y2.lora_A)
      close(got[gradientName('B')], c.grads_of_sum_y2.lora_B)
      if (c.magnitude) close(got[gradientName('magnitude')], c.grads_of_sum_y2.magnitude)
    })
})

described('optim_torch.json', () => {
  const { adamw: trace, clip } = table('optim_torch.json')

  it('adamw follows torch for ten steps and zeroes the gradient', () => {
    const n = trace.w0.length
    const g = new Graph()
    const [p, grad, m, v] = ['p', 'g', 'm', 'v'].map((name) => g.state(name, f32(n)))
    adamw(g, p, grad, m, v, sumSquares(g, grad), g.input('hyper', f32(10)), { decay: 1 })
    const program = toProgram(g, 'adamw')
    const bound = { p: flat(trace.w0), g: new Float64Array(n), m: new Float64Array(n), v: new Float64Array(n) }
    const [beta1, beta2] = trace.betas
    trace.grads.forEach((values: number[], step: number) => {
      bound.g.set(values)
      const t = step + 1
      const hyper = [
        trace.lr,
        beta1,
        beta2,
        trace.eps,
        trace.wd,
        0,
        1 - beta1 ** t,
        1 - beta2 ** t,
        1 - beta1,
        1 - beta2,
      ]
      runReference(program, { hyper: Float64Array.from(hyper) }, bound)
      close(bound.p, trace.trace[step], 1e-6)
      expect([...bound.g]).toEqual(new Array(n).fill(0))
    })
  })

  it('clips by the norm over all tensors', () => {
    const g = new Graph()
    const states = clip.grads.map((values: number[], i: number) =>
      ['p', 'g', 'm', 'v'].map((name) => g.state(`${name}${i}`, f32(values.length))),
    ) as Tensor[][]
    const squares = states.map(([, grad]) => sumSquares(g, grad)).reduce((a, b) => add(g, a, b))
    g.output('squares', squares)
    // beta1 = 0 leaves the clipped gradient in m.
    for (const [p, grad, m, v] of states) adamw(g, p, grad, m, v, squares, g.input('hyper', f32(10)), { decay: 0 })
    const bound: Arrays = {}
    clip.grads.forEach((values: number[], i: number) => {
      for (const name of 'pmv') bound[`${name}${i}`] = new Float64Array(values.length)
      bound[`g${i}`] = flat(values)
    })
    const hyper = Float64Array.of(0, 0, 0.9, 1e-8, 0, clip.max, 1, 0.1, 1, 0.1)
    const { squares: total } = runReference(toProgram(g, 'clip'), { hyper }, bound)
    expect(Math.sqrt(total[0])).toBeCloseTo(clip.norm, 5)
    clip.after.forEach((values: number[], i: number) => {
      close(bound[`m${i}`], values)
    })
  })
})

described('gkd_jsd_trl.json', () => {
  const { student, teacher, labels, cases } = table('gkd_jsd_trl.json')
  const vocabulary = student[0][0].length
  const rows: number[][] = student.flat()
  const scored = labels.flat().map((label: number) => label !== -100)
  const valid = scored.filter(Boolean).length
  const share: Record<string, number> = { batchmean: 1 / valid, sum: 1, mean: 1 / (valid * vocabulary) }
  const logSoftmax = (z: number[], t: number) => {
    const top = Math.max(...z)
    const lse = Math.log(z.reduce((s, v) => s + Math.exp((v - top) / t), 0)) + top / t
    return z.map((v) => v / t - lse)
  }
  // The whole vocabulary is picked, through an identity table.
  const identity = Float64Array.from({ length: vocabulary ** 2 }, (_, i) => (i % (vocabulary + 1) === 0 ? 1 : 0))

  for (const c of cases)
    if (c.reduction in share)
      it(`beta ${c.beta}, temperature ${c.temperature}, ${c.reduction}`, () => {
        const r = rows.length
        const { temperature, beta } = c
        const build = (g: Graph) => {
          const h = g.input('logits', f32(r, vocabulary))
          const pick = pickFrom(g, h, g.weight('table', f32(vocabulary, vocabulary)))
          const { loss } = distillation({ width: vocabulary, temperature, alpha: 0, beta })(g, r, pick)
          return { loss, wrt: [h] }
        }
        const got = differentiate(
          build,
          {
            logits: flat(rows),
            picks: Float64Array.from({ length: r * vocabulary }, (_, i) => i % vocabulary),
            temperature: Float64Array.of(temperature),
            teacherLogProbs: flat(teacher.flat().map((z: number[]) => logSoftmax(z, temperature))),
            teacherTail: new Float64Array(r).fill(-1e30),
            // TRL's GKD does not multiply by the temperature's square.
            weights: Float64Array.from(scored, (s: boolean) => (s ? share[c.reduction] / temperature ** 2 : 0)),
          },
          { table: identity },
        )
        close(got.loss, c.loss, 1e-5)
        close(got['d logits'], c.grad_student, 1e-5)
      })
})

described('grpo_cs336_cases.json', () => {
  // biome-ignore lint/suspicious/noExplicitAny: as above
  const cases: any[] = table('grpo_cs336_cases.json')
  const named = (part: string) => cases.filter((c) => c.name.includes(part))

  /** Rows are the tokens of both completions in turn. */
  function grpo(inputs: Record<string, Nested>, weights: number[]) {
    const [sequences, length] = [2, 10]
    const r = sequences * length
    const clip = inputs.cliprange as number
    const terms = { old: true, ref: false, sequences: null, epsLow: clip, epsHigh: clip, beta: 0 }
    const build = (g: Graph) => {
      const logProbs = g.input('logProbs', f32(r))
      const picked = { logProbs: view(g, logProbs, [r, 1]), entropy: logProbs, tail: logProbs }
      return { loss: policy(terms)(g, r, () => picked).loss, wrt: [logProbs] }
    }
    return differentiate(build, {
      logProbs: flat(inputs.policy_log_probs),
      oldLogProbs: flat(inputs.old_log_probs),
      advantages: flat((inputs.advantages as number[][]).map(([a]) => new Array(length).fill(a))),
      weights: Float64Array.from(weights),
    })
  }

  it.each([...named('grpo_clip_loss'), ...named('policy_gradient_loss_grpo_clip')])('$name', ({ inputs, expected }) => {
    // The loss of each row alone.
    const row = (i: number) =>
      grpo(
        inputs,
        Array.from({ length: 20 }, (_, j) => (i === j ? 1 : 0)),
      ).loss[0]
    close(
      Float64Array.from({ length: 20 }, (_, i) => row(i)),
      expected.array,
    )
  })

  it.each(named('grpo_microbatch'))('$name', ({ inputs, expected }) => {
    const mask: number[][] = inputs.response_mask
    const weights = mask.flatMap((row) => {
      const tokens = row.reduce((a, b) => a + b)
      return row.map((m) => m / tokens / mask.length / inputs.gradient_accumulation_steps)
    })
    const got = grpo(inputs, weights)
    close(got.loss, expected.loss)
    close(got['d logProbs'], expected.policy_log_probs_grad)
  })

  it.each(named('group_normalized_rewards'))('$name', ({ inputs, expected }) => {
    const scale = inputs.normalize_by_std ? 'group' : 'none'
    const got = groupAdvantages(inputs.raw_rewards, inputs.group_size, scale, inputs.eps)
    close(Float64Array.from(got), expected.normalized_rewards)
  })

  it.each([...named('naive_policy_gradient'), ...named('no_baseline'), ...named('with_baseline')])(
    '$name',
    ({ name, inputs, expected }) => {
      // At the policy that drew (ratio 1) the surrogate's gradient is that of -A log p.
      const advantages = inputs.adv ?? (name.includes('no_baseline') ? inputs.raw_rewards : inputs.advantages)
      const given = { ...inputs, advantages, old_log_probs: inputs.policy_log_probs, cliprange: 0.2 }
      const slope = grpo(given, new Array(20).fill(1))['d logProbs']
      close(
        flat(inputs.policy_log_probs).map((logProb, i) => logProb * slope[i]),
        expected.array,
      )
    },
  )

  it.each([...named('masked_mean'), ...named('masked_normalize')])('$name', ({ inputs, expected }) => {
    const logits: number[][][] = named('compute_entropy')[0].inputs.logits
    const [rows, length, width] = [logits.length, logits[0].length, logits[0][0].length]
    const [x, mask] = [flat(logits), flat(named('masked_mean_dimNone')[0].inputs.mask)]
    const keep: Record<string, (b: number, t: number, v: number) => number> = {
      null: () => 0,
      0: (_, t, v) => t * width + v,
      1: (b, _, v) => b * width + v,
      '-1': (b, t) => b * length + t,
    }
    const segmentOf = keep[String(inputs.dim)]
    const segments = x.map((_, i) =>
      segmentOf(Math.floor(i / width / length), Math.floor(i / width) % length, i % width),
    )
    const count = Math.max(...segments) + 1
    expect(x.length).toBe(rows * length * width)
    const sums = (values: Float64Array) => {
      const g = new Graph()
      g.output('sums', segmentSum(g, g.input('x', f32(x.length)), g.input('segments', i32(x.length)), count))
      return runReference(toProgram(g, 'sums'), { x: values, segments }, {}).sums
    }
    const total = sums(x.map((value, i) => value * mask[i]))
    const per = inputs.constant === undefined ? sums(mask) : total.map(() => inputs.constant)
    const wanted = (Array.isArray(expected.array) ? expected.array.flat(2) : [expected.array]) as (number | null)[]
    expect(wanted).toHaveLength(count)
    for (const [i, want] of wanted.entries())
      if (want === null) expect(per[i]).toBe(0)
      else expect(Math.abs(total[i] / per[i] - want)).toBeLessThan(2e-6 * Math.max(1, Math.abs(want)))
  })

  it('has no other cases', () => {
    const parts = ['grpo', 'group_normalized', 'naive', 'baseline', 'sft_microbatch', 'entropy', 'masked']
    expect(cases.filter((c) => !parts.some((part) => c.name.includes(part)))).toEqual([])
  })

  it.each(named('sft_microbatch'))('$name', ({ inputs, expected }) => {
    const mask: number[][] = inputs.response_mask
    const build = (g: Graph) => {
      const logProbs = g.input('logProbs', f32(20))
      return { loss: scale(g, sum(g, mul(g, logProbs, g.input('weights', f32(20)))), -1), wrt: [logProbs] }
    }
    const per = inputs.normalize_constant * mask.length * inputs.gradient_accumulation_steps
    const got = differentiate(build, {
      logProbs: flat(inputs.policy_log_probs),
      weights: flat(mask).map((m) => m / per),
    })
    close(got.loss, expected.loss)
    close(got['d logProbs'], expected.policy_log_probs_grad)
  })

  it.each(named('compute_entropy'))('$name', ({ inputs, expected }) => {
    const v = inputs.logits[0][0].length
    const g = new Graph()
    const rows = inputs.logits.flat().length
    const [, , entropy] = vocabPick(
      g,
      g.input('h', f32(rows, v)),
      g.weight('table', f32(v, v)),
      g.input('ids', i32(rows, 1)),
      fill(g, [1], 1),
    )
    g.output('entropy', entropy)
    const identity = Float64Array.from({ length: v * v }, (_, i) => (i % (v + 1) === 0 ? 1 : 0))
    const got = runReference(
      toProgram(g, 'entropy'),
      { h: flat(inputs.logits), ids: new Float64Array(rows) },
      { table: identity },
    )
    close(got.entropy, expected.array)
  })
})
