import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { apiReference } from './api-reference.ts'

it('docs/api.md is what the docstrings say: npm run docs makes it', () => {
  expect(readFileSync('docs/api.md', 'utf8') === apiReference(), 'docs/api.md is old: run `npm run docs`').toBe(true)
})
