import { describe, expect, it } from 'vitest'
import { fillNormal, fillUniform, nameCounter, normal, randomBits, uniform } from '../../sdk/random.ts'

describe('random numbers', () => {
  it('are the same forever', () => {
    expect([randomBits(0), randomBits(0, 0), randomBits(1, 2, 3), randomBits(-1, 2 ** 32 - 1)]).toMatchInlineSnapshot(`
      [
        1531112040,
        3763674607,
        1096201625,
        73395905,
      ]
    `)
    expect(randomBits(-1, -2)).toBe(randomBits(2 ** 32 - 1, 2 ** 32 - 2))
    expect(nameCounter('model.layers.0.mlp.up_proj.lora_A')).toMatchInlineSnapshot(`4060414132`)
  })

  it('uniform: mean, variance, range, exact in f32', () => {
    const n = 100000
    let [sum, squares, serial] = [0, 0, 0]
    let before = 0.5
    for (let i = 0; i < n; i++) {
      const u = uniform(42, 7, i)
      expect(Math.fround(u)).toBe(u)
      if (u < 0 || u >= 1) throw new Error(`${u}`)
      sum += u
      squares += (u - 0.5) ** 2
      serial += (u - 0.5) * (before - 0.5)
      before = u
    }
    // 5 standard errors
    expect(Math.abs(sum / n - 0.5)).toBeLessThan((5 * Math.sqrt(1 / 12)) / Math.sqrt(n))
    expect(Math.abs(squares / n - 1 / 12)).toBeLessThan(5 * Math.sqrt(1 / 180 / n))
    expect(Math.abs(serial / n)).toBeLessThan(5 / 12 / Math.sqrt(n))
  })

  it('every counter flips half of the bits, whatever its place', () => {
    for (const place of [0, 1, 2]) {
      let flipped = 0
      for (let i = 0; i < 2000; i++) {
        const counters = [5, i, 9]
        const changed = counters.with(place, counters[place] ^ (1 << (i % 20)))
        let x = randomBits(1, ...counters) ^ randomBits(1, ...changed)
        for (; x !== 0; x &= x - 1) flipped++
      }
      expect(Math.abs(flipped / 2000 - 16)).toBeLessThan(0.4) // 5 standard errors are 0.32
    }
  })

  it('streams of one seed do not collide', () => {
    const seen = new Set<string>()
    for (let prompt = 0; prompt < 300; prompt++)
      for (let sample = 0; sample < 100; sample++)
        seen.add(`${randomBits(0, prompt, sample, 0)} ${randomBits(0, prompt, sample, 1)}`)
    expect(seen.size).toBe(30000)
  })

  it('normal: moments and tails', () => {
    const n = 100000
    let [sum, squares, fourth, beyond2] = [0, 0, 0, 0]
    for (let i = 0; i < n; i++) {
      const x = normal(3, i)
      sum += x
      squares += x * x
      fourth += x ** 4
      if (Math.abs(x) > 2) beyond2++
    }
    expect(Math.abs(sum / n)).toBeLessThan(0.016)
    expect(Math.abs(squares / n - 1)).toBeLessThan(0.023)
    expect(Math.abs(fourth / n - 3)).toBeLessThan(0.16)
    expect(Math.abs(beyond2 / n - 0.0455)).toBeLessThan(0.0034)
  })

  it('fills agree with single values', () => {
    const out = new Float32Array(5)
    fillUniform(out, -2, 6, 11, 4)
    expect([...out]).toEqual(Array.from(out, (_, i) => Math.fround(-2 + 8 * uniform(11, 4, i))))
    fillNormal(out, 0.02, 11, 4)
    expect([...out]).toEqual(Array.from(out, (_, i) => Math.fround(0.02 * normal(11, 4, i))))
  })
})
