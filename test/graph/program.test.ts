import { describe, expect, it } from 'vitest'
import { ShapeError } from '../../sdk/errors.ts'
import { Graph } from '../../sdk/graph/graph.ts'
import { bindings, print, toProgram } from '../../sdk/graph/program.ts'
import { accumulate, add, linear, mul, rmsnorm, scale, swiglu, view } from '../../sdk/ops/index.ts'
import { exposeAll } from '../compare.ts'

const f32 = (...shape: number[]) => ({ dtype: 'f32' as const, shape })

describe('toProgram', () => {
  it('drops nodes that reach neither an output nor a state', () => {
    const g = new Graph()
    const x = g.input('x', f32(3))
    const unused = scale(g, g.input('unused', f32(3)), 2)
    scale(g, unused, 3)
    accumulate(g, g.state('total', f32(3)), scale(g, x, 4))
    g.output('y', scale(g, x, 5))
    const p = toProgram(g, 'dead')
    expect(p.nodes.map((node) => node.attrs.factor ?? node.op)).toEqual([4, 'accumulate', 5])
    expect([...bindings(p, 'input').keys()]).toEqual(['x'])
    expect([...bindings(p, 'state').keys()]).toEqual(['total'])
  })

  it('is plain cloneable data', () => {
    const g = new Graph()
    g.output('y', rmsnorm(g, g.input('x', f32(2, 3)), g.weight('w', f32(3)), 1e-6)[0])
    const p = toProgram(g, 'plain')
    expect(structuredClone(p)).toEqual(p)
  })
})

describe('Graph', () => {
  it('refuses to read or write an older version of a state', () => {
    const g = new Graph()
    const [old, x] = [g.state('s', f32(3)), g.input('x', f32(3))]
    const next = accumulate(g, old, x)
    expect(() => add(g, old, x)).toThrow('add: reads an older version of state s')
    expect(() => accumulate(g, old, x)).toThrow('accumulate: writes an older version of state s')
    expect(g.state('s', f32(3))).toBe(next)
    expect(() => add(g, next, x)).not.toThrow()
  })

  it('refuses one name for two types or kinds', () => {
    const g = new Graph()
    g.weight('w', f32(3))
    expect(() => g.weight('w', f32(4))).toThrow('weight w: bound as weight f32[3], asked for as f32[4]')
    expect(() => g.state('w', f32(3))).toThrow(ShapeError)
  })

  it('refuses nested regions, and closes one that throws', () => {
    const g = new Graph()
    expect(() => g.region('a', () => g.region('b', () => 0))).toThrow('region b inside region a')
    expect(g.region('c', () => 1)).toBe(1)
  })
})

describe('print', () => {
  it('lists nodes with shapes, bytes and lifetimes', () => {
    const g = new Graph()
    const x = g.input('x', f32(2, 8))
    g.region('layer0', () => {
      const normed = rmsnorm(g, x, g.weight('norm', f32(8)), 1e-6)[0]
      const y = linear(g, normed, g.weight('w', f32(4, 8)))
      g.output('y', view(g, mul(g, y, y), [8]))
    })
    accumulate(g, g.state('total', f32(2, 8)), swiglu(g, x, x))
    expect(print(toProgram(g, 'small'))).toMatchInlineSnapshot(`
      "program small: 6 nodes, arena 192 bytes
          0  layer0.rmsnorm f32[2, 8] {@64+64 live 0..1}, layer0.rmsnorm#1 f32[2] {@128+8 live 0..0} = rmsnorm eps=0.000001 offset=0(x f32[2, 8], norm f32[8])
          1  layer0.linear f32[2, 4] {@128+32 live 1..2} = linear activations=f32(layer0.rmsnorm f32[2, 8], w f32[4, 8])
          2  layer0.mul f32[2, 4] {@64+32 live 2..6} = mul(layer0.linear f32[2, 4], layer0.linear f32[2, 4])
          3  layer0.view f32[8] {@64+32 live 2..6} = view shape=8(layer0.mul f32[2, 4])
          4  swiglu f32[2, 8] {@128+64 live 4..5} = swiglu activation=silu(x f32[2, 8], x f32[2, 8])
          5  total f32[2, 8] {total} = accumulate(total f32[2, 8], swiglu f32[2, 8])
             output y = layer0.view f32[8]"
    `)
  })
})

describe('exposeAll', () => {
  it('makes an output of every temp', () => {
    const g = new Graph()
    const x = g.input('x', f32(2))
    g.output('y', scale(g, scale(g, x, 2), 3))
    expect(Object.keys(exposeAll(toProgram(g, 'two')).outputs).length).toBe(3)
  })
})
