import { inNode } from '../formats/file-system.ts'

/** Bytes as they come. */
export interface Hash {
  update(bytes: Uint8Array): void
  /** In hexadecimal. */
  digest(): string
}

/** Node's own, or that of @noble/hashes: the browsers' takes all bytes at once. */
export async function newHash(kind: 'sha256' | 'sha1'): Promise<Hash> {
  if (inNode) {
    const hash = (await import('node:crypto')).createHash(kind)
    return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest('hex') }
  }
  const { bytesToHex } = await import('@noble/hashes/utils.js')
  const hash =
    kind === 'sha256'
      ? (await import('@noble/hashes/sha2.js')).sha256.create()
      : (await import('@noble/hashes/legacy.js')).sha1.create()
  return { update: (bytes) => void hash.update(bytes), digest: () => bytesToHex(hash.digest()) }
}
