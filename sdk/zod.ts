import { z } from 'zod'
import { isNode } from './runtime.ts'

// Elsewhere than in Node zod would try `new Function` to be faster: pages that forbid it (Content-Security-Policy) report the attempt.
if (!isNode) z.config({ jitless: true })
// Its own words are "Invalid input: expected string, received undefined".
z.config({
  customError: ({ code, input }) => (code === 'invalid_type' && input === undefined ? 'is missing' : undefined),
})

export { z }
