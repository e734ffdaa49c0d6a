import { isNode } from '../formats/file-system.ts'

export interface Hash {
  update(bytes: Uint8Array): void
  /** The hash of all bytes, in hexadecimal; ends it. */
  hex(): string
}

/** A hash of bytes that come in pieces: Node's own, which is ten times as fast, or in a browser that of a library. */
export async function openHash(kind: 'sha1' | 'sha256'): Promise<Hash> {
  if (isNode) {
    const { createHash } = await import('node:crypto')
    const hash = createHash(kind)
    return { update: (bytes) => void hash.update(bytes), hex: () => hash.digest('hex') }
  }
  const [{ sha256 }, { sha1 }] = await Promise.all([import('@noble/hashes/sha2.js'), import('@noble/hashes/legacy.js')])
  const hash = (kind === 'sha1' ? sha1 : sha256).create()
  const hex = () => Array.from(hash.digest(), (byte) => byte.toString(16).padStart(2, '0')).join('')
  return { update: (bytes) => void hash.update(bytes), hex }
}

/** In hexadecimal. */
export async function sha256OfText(text: string): Promise<string> {
  const hash = await openHash('sha256')
  hash.update(new TextEncoder().encode(text))
  return hash.hex()
}
