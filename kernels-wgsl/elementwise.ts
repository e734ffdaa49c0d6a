import { each, expo, type Kernel } from './kernel.ts'

// Elementwise ops, one thread an element; a step of 0 repeats a scalar argument. Bound by memory: measured in docs/performance.md.

const binary = (name: string, expression: string, functions = ''): Kernel =>
  each(
    name,
    { a: 'float', b: 'float', y: 'floatOut' },
    ['step_a', 'step_b'],
    `let u = a(i * p.step_a);\n  let v = b(i * p.step_b);\n  set_y(i, ${expression});`,
    functions,
  )

const unary = (name: string, expression: string, params: string[] = [], functions = ''): Kernel =>
  each(name, { a: 'float', y: 'floatOut' }, params, `let u = a(i);\n  set_y(i, ${expression});`, functions)

/** log(1 + x) without losing x: Kahan's correction of the rounding of 1 + x. */
const log1p = /* wgsl */ `
fn log1p_(x: f32) -> f32 {
  let w = 1.0 + x;
  if (w == 1.0) { return x; }
  return log(w) * (x / (w - 1.0));
}
`

export const add = binary('add', 'u + v')
export const sub = binary('sub', 'u - v')
export const mul = binary('mul', 'u * v')
export const div = binary('div', 'u / v')
export const min = binary('min', 'min(u, v)')
export const max = binary('max', 'max(u, v)')
export const logAddExp = binary('logAddExp', 'max(u, v) + log1p_(exp(-abs(u - v)))', log1p)
export const scale = unary('scale', 'u * p.f_factor', ['f_factor'])
/** exp of less than -100 is 0; WGSL leaves what underflows open. */
export const exp = unary('exp', 'select(exp(u), 0.0, u < -100.0)')
export const log = unary('log', 'log(u)')
export const log1pKernel = unary('log1p', 'log1p_(u)', [], log1p)
export const clamp = unary('clamp', 'min(max(u, p.f_lo), p.f_hi)', ['f_lo', 'f_hi'])
export const where: Kernel = each(
  'where',
  { c: 'float', a: 'float', b: 'float', y: 'floatOut' },
  [],
  'if (c(i) > 0.0) { set_y(i, a(i)); } else { set_y(i, b(i)); }',
)
export const expand: Kernel = each('expand', { a: 'float', y: 'floatOut' }, ['width'], 'set_y(i, a(i / p.width));')
export const fill: Kernel = each('fill', { y: 'floatOut' }, ['f_value'], 'set_y(i, p.f_value);')
export const copy: Kernel = each('copy', { a: 'float', y: 'floatOut' }, [], 'set_y(i, a(i));')

type Activation = 'silu' | 'gelu_tanh'
/** sigmoid(u(x)) and x·u'(x) of an activation x·sigmoid(u(x)): sdk/ops/swiglu.ts. Beyond 20 the sigmoid is 0 or 1. */
const activation = (name: Activation): string => `${expo}
fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + expo(-clamp(x, -80.0, 80.0))); }
${
  name === 'silu'
    ? `fn gate_of(x: f32) -> f32 { return sigmoid(x); }
fn steepness(x: f32) -> f32 { return x; }`
    : `fn gate_of(x: f32) -> f32 { let c = clamp(x, -20.0, 20.0); return sigmoid(c * (1.59576912 + 0.0713548163 * c * c)); }
fn steepness(x: f32) -> f32 { let c = clamp(x, -20.0, 20.0); return c * (1.59576912 + 0.214064449 * c * c); }`
}
`
export const swiglu = (name: Activation): Kernel =>
  each(
    `swiglu ${name}`,
    { gate: 'float', up: 'float', y: 'floatOut' },
    [],
    'let x = gate(i);\n  set_y(i, x * gate_of(x) * up(i));',
    activation(name),
  )
export const swigluBack = (name: Activation): Kernel =>
  each(
    `swigluBack ${name}`,
    { dy: 'float', gate: 'float', up: 'float', dgate: 'floatOut', dup: 'floatOut' },
    [],
    `let x = gate(i);
  let s = gate_of(x);
  let d = dy(i);
  let u = up(i);
  set_dgate(i, d * u * s * (1.0 + steepness(x) * (1.0 - s)));
  set_dup(i, d * x * s);`,
    activation(name),
  )

/** The counter-based mask of sdk/ops/dropout.ts; `kept` is 1/(1 - p). */
export const dropout: Kernel = each(
  'dropout',
  { x: 'float', seed: 'int', y: 'floatOut' },
  ['stream', 'least', 'f_kept'],
  `let key = mix(p.stream ^ mix(bitcast<u32>(seed(1u)) ^ mix(bitcast<u32>(seed(0u)))));
  set_y(i, select(0.0, x(i) * p.f_kept, mix(i ^ key) >= p.least));`,
  `fn mix(x: u32) -> u32 {
  var h = x + 0x9e3779b9u;
  h = (h ^ (h >> 16u)) * 0x21f0aaadu;
  h = (h ^ (h >> 15u)) * 0x735a2d97u;
  return h ^ (h >> 15u);
}
`,
)

/** torch.optim.AdamW; where normSquared is not finite (looked at in its bits) nothing changes but the gradient, which is 0 again. */
export const adamw: Kernel = each(
  'adamw',
  { w: 'floatOut', grad: 'floatOut', m: 'floatOut', v: 'floatOut', norm: 'float', hyper: 'float' },
  ['decay'],
  `let squares = norm(0u);
  let raw = grad(i);
  set_grad(i, 0.0);
  if ((bitcast<u32>(squares) & 0x7f800000u) == 0x7f800000u) { return; }
  let limit = hyper(5u);
  let clipped = select(1.0, min(1.0, limit / (sqrt(squares) + 1e-6)), limit > 0.0);
  let g = raw * clipped;
  let m2 = hyper(1u) * m(i) + hyper(8u) * g;
  let v2 = hyper(2u) * v(i) + hyper(9u) * g * g;
  set_m(i, m2);
  set_v(i, v2);
  let change = m2 / (sqrt(v2) / sqrt(hyper(7u)) + hyper(3u));
  let rate = hyper(0u);
  let kept = select(1.0, 1.0 - rate * hyper(4u), p.decay == 1u);
  set_w(i, w(i) * kept - (rate / hyper(6u)) * change);`,
)
