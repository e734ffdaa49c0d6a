import { z } from 'zod'
import { isNode } from './runtime.ts'

// Elsewhere than in Node zod would try `new Function` to be faster: pages that forbid it (Content-Security-Policy) report the attempt.
if (!isNode) z.config({ jitless: true })

export { z }
