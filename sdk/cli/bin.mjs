#!/usr/bin/env node
// The package ships TypeScript sources, which Node cannot import from node_modules by itself: tsx does it. No tsconfig
// of the folder that the user happens to be in has a say.
import { register } from 'tsx/esm/api'

register({ tsconfig: false })
const { main } = await import('./main.ts')
const code = await main(process.argv.slice(2))
process.stdout.write('', () => process.exit(code))
