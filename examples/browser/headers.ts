/** What the page is served with. */
export const headers = {
  // Threads share memory in pages that are isolated from other origins.
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
  // No code but the page's own files; WebAssembly needs a word of its own. Models may come from anywhere.
  'content-security-policy': [
    "default-src 'self'",
    "script-src 'self' 'wasm-unsafe-eval'",
    "worker-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    // Vite makes data: of small files.
    "connect-src 'self' https: data:",
    "object-src 'none'",
    "base-uri 'none'",
  ].join('; '),
}
