/** In Node, or in a page or a Worker of one. */
export const isNode: boolean = typeof globalThis.process?.versions?.node === 'string'
