import { spawnSync } from 'node:child_process'
import { expect, it } from 'vitest'

// The run of 1,000,000 is by hand: docs/log.md has its table.
it('20,000 seeded mutations of every kind of file: a result or a typed error, soon and in little memory', {
  timeout: 600_000,
}, () => {
  const args = ['--import', 'tsx', 'test/trust/corruption.ts', '--count', '20100', '--seed', '1', '--json']
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', maxBuffer: 2 ** 26 })
  expect(stdout, stderr).not.toBe('')
  const { table, problems } = JSON.parse(stdout)
  expect(problems).toEqual([])
  const tallies = Object.values(table) as { mutations: number; opened: number; slowest: number; growth: number }[]
  expect(Object.keys(table)).toHaveLength(11)
  expect(tallies.reduce((sum, { mutations }) => sum + mutations, 0)).toBeGreaterThanOrEqual(20_000)
  for (const [kind, { mutations, opened }] of Object.entries(table) as [string, (typeof tallies)[number]][]) {
    // Some damage does not matter, most does.
    expect(opened, kind).toBeGreaterThan(0)
    expect(opened, kind).toBeLessThan(mutations / 2)
  }
})
