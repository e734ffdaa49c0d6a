import * as kernels from '../../../kernels-wgsl/rows.ts'
import { byteLength } from '../../../sdk/dtype.ts'
import { columnsOf, count, direct, each, type Lowering, partsOf, rowsOf } from './types.ts'

export const rows = {
  view: direct(() => []),
  stopGradient: direct(() => []),
  gatherRows: direct(({ inputs: [x, own], outputs: [y] }) => [
    each(kernels.gatherRows, count(y), [x, own, y], [columnsOf(y)]),
  ]),
  scatterRows: direct(({ inputs: [dy, own], outputs: [y] }) => [
    each(kernels.scatterRows, count(y), [dy, own, y], [columnsOf(y), count(own)]),
  ]),
  embed: direct(({ inputs: [ids, table], outputs: [y] }) =>
    partsOf(table).map(({ place, first }) =>
      each(kernels.embed, count(y), [ids, place, y], [columnsOf(y), first, rowsOf(place)]),
    ),
  ),
  embedBack: direct(({ inputs: [dy, ids, grad] }) => [
    each(kernels.embedBack, count(dy), [dy, ids, grad], [count(ids), columnsOf(dy)]),
  ]),
  rmsnorm: direct(({ inputs, outputs }, { eps, offset }) => {
    const [x] = inputs
    const params = [columnsOf(x), eps, offset]
    return [{ kernel: kernels.rmsnorm, args: [...inputs, ...outputs], params, groups: rowsOf(x) }]
  }),
  rmsnormBack: direct(({ inputs, outputs }, { offset }) => {
    const [, x] = inputs
    const params = [columnsOf(x), offset]
    return [{ kernel: kernels.rmsnormBack, args: [...inputs, ...outputs], params, groups: rowsOf(x) }]
  }),
  rmsnormBackWeight: direct(({ inputs }) => {
    const [, x] = inputs
    return [each(kernels.rmsnormBackWeight, columnsOf(x), inputs, [rowsOf(x)])]
  }),
  rope: direct(({ inputs: [x, positions, table], outputs: [y] }, { heads, inverse }) => {
    return [each(kernels.rope, count(x) / 2, [x, positions, table, y], [heads, columnsOf(table), inverse ? -1 : 1])]
  }),
  kvWrite: direct(({ inputs }) => {
    const [cache, x, , slot] = inputs
    const asHalves = cache.dtype === 'f16'
    const kernel = kernels.kvWrite(slot !== undefined, asHalves)
    return [each(kernel, count(x) / (asHalves ? 2 : 1), inputs, cache.shape.slice(1))]
  }),
  kvCopy: direct(({ inputs: [cache, ...copies] }) => {
    const [slots, heads, capacity] = cache.shape
    const d = byteLength(cache) / (4 * slots * heads * capacity)
    const words = { ...cache, dtype: 'i32' as const, shape: [slots, heads, capacity, d] }
    return [each(kernels.kvCopy, count(words) / slots, [words, ...copies], [count(copies[0]), capacity, d])]
  }),
} satisfies Partial<Lowering>
