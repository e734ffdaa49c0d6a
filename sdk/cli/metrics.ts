import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { MetricsLine } from '../train/metrics.ts'

/** The lines of metrics.jsonl in a run's folder. */
export async function readMetrics(outputDir: string): Promise<MetricsLine[]> {
  const text = await readFile(join(outputDir, 'metrics.jsonl'), 'utf8')
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))
}
