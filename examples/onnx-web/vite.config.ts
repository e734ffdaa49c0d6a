import { defineConfig } from 'vite'
import { headers } from '../browser/headers.ts'

export default defineConfig({
  base: './',
  build: { target: 'es2022' },
  server: { headers },
  preview: { headers },
})
