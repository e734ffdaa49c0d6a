import { describe } from 'vitest'
import { wasmTarget } from '../../targets/wasm/index.ts'
import { losable } from '../losable.ts'
import { lostCases } from './lost-cases.ts'

describe('a device that can be told to go away', () => lostCases(async () => losable(await wasmTarget({ threads: 1 }))))
