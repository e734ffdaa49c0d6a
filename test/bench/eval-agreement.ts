// `halfling eval` on GSM8K beside llama.cpp on the same prompts: how many grades agree, and both accuracies with their standard errors.
// `npx tsx test/bench/eval-agreement.ts MODEL.gguf FOLDER [items] [max tokens]`; FOLDER has node-llama-cpp in its node_modules.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { graders } from '../../sdk/answers/graders.ts'
import { evaluate } from '../../sdk/eval/evaluate.ts'
import { encodeQuestion, type Question } from '../../sdk/eval/prompts.ts'
import { readTask } from '../../sdk/eval/tasks.ts'
import { loadModel } from '../../sdk/index.ts'

const [model, folder, count = '100', tokens = '512'] = process.argv.slice(2)
const questions: Question[] = []
for await (const question of readTask('gsm8k', join(process.env.HALFLING_SHARED ?? '../shared', 'data/gsm8k'))) {
  if (questions.length === Number(count)) break
  questions.push(question)
}
const lm = await loadModel(model, { device: 'wasm', threads: 2 })
const start = performance.now()
const { items } = await evaluate(lm, questions, { grader: 'math', maxNewTokens: Number(tokens) })
const seconds = (performance.now() - start) / 1000

const work = mkdtempSync(join(tmpdir(), 'halfling-agreement-'))
const prompts = join(work, 'prompts.json')
writeFileSync(prompts, JSON.stringify(questions.map(({ question }) => encodeQuestion(lm, question, 'chat'))))
const args = ['test/bench/peers/llama-cpp-greedy.mjs', model, folder, prompts, tokens]
const started = performance.now()
const theirs: number[][] = JSON.parse(
  execFileSync(process.execPath, args, { encoding: 'utf8', maxBuffer: 2 ** 28 })
    .trim()
    .split('\n')
    .at(-1)!,
)
const theirSeconds = (performance.now() - started) / 1000
rmSync(work, { recursive: true })

let [theirsRight, agree, same] = [0, 0, 0]
for (const [i, { correct, text }] of items.entries()) {
  const own = lm.tokenizer.decode(theirs[i], { skipSpecialTokens: true })
  const graded = await graders.math.grade(questions[i].answer, own)
  if (graded.correct) theirsRight++
  if (graded.correct === correct) agree++
  if (own.trim() === text.trim()) same++
}
await lm.close()
const n = items.length
const shown = (right: number) => `${right} of ${n} (standard error ${Math.sqrt((right * (n - right)) / n).toFixed(1)})`
console.log(`right: Halfling ${shown(items.filter(({ correct }) => correct).length)}, llama.cpp ${shown(theirsRight)}`)
console.log(`grades agree in ${agree} of ${n}, texts in ${same}`)
console.log(`${seconds.toFixed(0)} s, 16 side by side; llama.cpp ${theirSeconds.toFixed(0)} s, one after the other`)
