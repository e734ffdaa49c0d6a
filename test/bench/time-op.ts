import type { TensorType } from '../../sdk/dtype.ts'
import { Graph } from '../../sdk/graph/graph.ts'
import { toProgram } from '../../sdk/graph/program.ts'
import type { OpSpec } from '../../sdk/graph/spec.ts'
import type { Buffer, Target } from '../../sdk/target.ts'

export interface Argument extends TensorType {
  readonly kind: 'input' | 'weight' | 'state'
}

/** Best milliseconds of one op: `repeat` nodes in one program, so that the run's own cost does not count. */
export async function timeOp(target: Target, spec: OpSpec, args: readonly Argument[], repeat: number): Promise<number> {
  const g = new Graph()
  const bound: Record<string, Buffer> = {}
  const inputs: Record<string, ArrayBufferView> = {}
  const tensors = args.map(({ kind, ...type }, i) => {
    const name = `argument${i}`
    if (kind === 'input') {
      const bytes = type.shape.reduce((n, d) => n * d, 1)
      inputs[name] = type.dtype === 'i32' ? new Int32Array(bytes) : new Float32Array(bytes).fill(0.5)
      return g.input(name, type)
    }
    bound[name] = target.create(type, name)
    return kind === 'weight' ? g.weight(name, type) : g.state(name, type)
  })
  for (let r = 0; r < repeat; r++) {
    const outputs = g.apply(
      spec,
      tensors.map((t) => (t.kind === 'state' ? g.newest.get(t.name)! : t)),
      {},
    )
    if (outputs[0].kind !== 'state') g.output(`y${r}`, outputs[0])
  }
  const executable = await target.compile(toProgram(g, spec.name), bound)
  let best = Number.POSITIVE_INFINITY
  for (let round = 0; round < 5; round++) {
    const start = performance.now()
    await executable.run(inputs)
    best = Math.min(best, (performance.now() - start) / repeat)
  }
  executable.free()
  for (const buffer of Object.values(bound)) target.free(buffer)
  return best
}
