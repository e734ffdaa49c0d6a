// Reads vitest's json report: prints every skip with its reason, fails when a golden was skipped although ../shared is
// there, and closes with one line of counts.
import { existsSync, readFileSync } from 'node:fs'

const report = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const tests = report.testResults.flatMap((file) =>
  file.assertionResults.map((test) => ({ ...test, file: file.name.split('/').slice(-3).join('/') })),
)
const skipped = tests.filter((test) => test.status === 'pending' || test.status === 'skipped' || test.status === 'todo')
for (const test of skipped) console.log(`skipped: ${test.file}: ${test.fullName}`)
const failed = tests.filter((test) => test.status === 'failed').length
// A file that does not even load has no tests in it.
const broken = report.testResults.filter(
  (file) => file.status === 'failed' && file.assertionResults.length === 0,
).length
const goldens = existsSync(process.env.HALFLING_GOLDEN ?? '../shared/golden')
const lostGolden = goldens ? skipped.filter((test) => /golden|shared/i.test(test.fullName)).length : 0
if (lostGolden > 0) console.log(`${lostGolden} golden tests were skipped although the golden folder is there`)
console.log(
  `${tests.length - skipped.length - failed} passed, ${failed + broken + lostGolden} failed, ${skipped.length} skipped`,
)
process.exit(failed + broken + lostGolden > 0 ? 1 : 0)
