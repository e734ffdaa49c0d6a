import { basename } from 'node:path'
import type { Command } from 'commander'
import { serveApp } from '../../serve/app.ts'
import { Interrupted } from '../errors.ts'
import { interruptible } from '../interrupt.ts'
import { withModel } from '../open-model.ts'
import { addModel, addPrecision, integer, type ModelFlags } from '../options.ts'
import { log } from '../output.ts'

interface Flags extends ModelFlags {
  readonly port: number
  readonly host: string
  readonly name?: string
  readonly slots: number
  readonly queue: number
}

export function addServe(program: Command): void {
  const command = program
    .command('serve')
    .description("OpenAI's completions and chat completions over HTTP, with streaming and log-probabilities")
  addPrecision(addModel(command))
    .addOption(integer('--port <n>', '0: any that is free', 0).default(8080))
    .option('--host <address>', 'where it listens; 0.0.0.0 is every network', '127.0.0.1')
    .option('--name <name>', 'what clients call the model (default: its own name)')
    .addOption(integer('--slots <n>', 'answers computed side by side, each with a key/value cache', 1).default(8))
    .addOption(integer('--queue <n>', 'requests that may wait beside those; more are refused with 429', 1).default(64))
    .action((flags: Flags) =>
      interruptible((signal) =>
        withModel(flags, signal, async (lm) => {
          const { serve } = await import('@hono/node-server')
          const modelName = flags.name ?? basename(flags.model ?? 'nano')
          const app = serveApp(lm, { modelName, slots: flags.slots, queue: flags.queue })
          const { port, host: hostname } = flags
          await new Promise<void>((_, reject) => {
            const server = serve({ fetch: app.fetch, port, hostname }, (address) =>
              log(`${modelName} at http://${hostname}:${address.port}/v1 (Ctrl-C ends it)`),
            )
            server.on('error', reject)
            signal.addEventListener('abort', () => {
              server.close()
              // Streams would hold it open.
              if ('closeAllConnections' in server) server.closeAllConnections()
              reject(new Interrupted())
            })
          })
        }),
      ),
    )
}
