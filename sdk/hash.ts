import { isNode } from './runtime.ts'

export interface Hash {
  update(bytes: Uint8Array): void
  /** The hash of all bytes, in hexadecimal; ends it. */
  hex(): string
}

const hexOf = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')

/** A hash of bytes that come in pieces: Node's own, which is ten times as fast, or in a browser that of a library. */
export async function openHash(kind: 'sha1' | 'sha256'): Promise<Hash> {
  if (isNode) {
    const { createHash } = await import('node:crypto')
    const hash = createHash(kind)
    return { update: (bytes) => void hash.update(bytes), hex: () => hash.digest('hex') }
  }
  const [{ sha256 }, { sha1 }] = await Promise.all([import('@noble/hashes/sha2.js'), import('@noble/hashes/legacy.js')])
  const hash = (kind === 'sha1' ? sha1 : sha256).create()
  return { update: (bytes) => void hash.update(bytes), hex: () => hexOf(hash.digest()) }
}

/** SHA-256 in hexadecimal of bytes, or of a text as UTF-8. */
export async function sha256(content: Uint8Array | string): Promise<string> {
  const bytes = typeof content === 'string' ? new TextEncoder().encode(content) : content
  return hexOf(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>)))
}
