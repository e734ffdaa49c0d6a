import type { Kernel } from '../../kernels-wgsl/kernel.ts'
import { DeviceError } from '../../sdk/errors.ts'
import { type Binding, shaderOf } from './shader.ts'
import { Pace } from './work.ts'

const computeStage = 4

export interface Pipeline {
  /** The kernel's name, with the stored types that it reads. */
  readonly label: string
  readonly pipeline: GPUComputePipeline
  readonly layout: GPUBindGroupLayout
  readonly pace: Pace
}

/** The pipelines of one device, each compiled once, all at the same time. */
export class Pipelines {
  private readonly device: GPUDevice
  private readonly made = new Map<string, Promise<Pipeline>>()

  constructor(device: GPUDevice) {
    this.device = device
  }

  /** Is it there, or under way? */
  has(kernel: Kernel, where: readonly Binding[]): boolean {
    return this.made.has(keyOf(kernel, where))
  }

  /** Throws DeviceError with the compiler's message. */
  get(kernel: Kernel, where: readonly Binding[]): Promise<Pipeline> {
    const key = keyOf(kernel, where)
    let made = this.made.get(key)
    if (!made) {
      made = this.make(kernel, where)
      this.made.set(key, made)
      made.catch(() => this.made.delete(key))
    }
    return made
  }

  private async make(kernel: Kernel, where: readonly Binding[]): Promise<Pipeline> {
    const { device } = this
    const { code, written } = shaderOf(kernel, where)
    const stored = new Set(where.map(({ dtype }) => dtype).filter((dtype) => dtype !== 'f32' && dtype !== 'i32'))
    const label = [kernel.name, ...stored].join(' ')
    device.pushErrorScope('validation')
    const layout = device.createBindGroupLayout({
      entries: [
        { binding: 0, visibility: computeStage, buffer: { type: 'uniform', hasDynamicOffset: true } },
        ...written.map((out, b) => {
          const buffer: GPUBufferBindingLayout = { type: out ? 'storage' : 'read-only-storage' }
          return { binding: b + 1, visibility: computeStage, buffer }
        }),
      ],
    })
    const module = device.createShaderModule({ label, code })
    const making = device.createComputePipelineAsync({
      label,
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: 'main' },
    })
    const invalid = device.popErrorScope().catch(() => null)
    try {
      return { label, pipeline: await making, layout, pace: new Pace() }
    } catch (cause) {
      const { messages } = await module.getCompilationInfo().catch(() => ({ messages: [] }))
      const errors = messages.filter(({ type }) => type === 'error')
      const lines = code.split('\n')
      const said = errors.map(
        ({ lineNum, message }) => `line ${lineNum}, ${message}: ${lines[lineNum - 1]?.trim() ?? ''}`,
      )
      const why = said.join('; ') || (await invalid)?.message || (cause as Error).message
      throw new DeviceError(`webgpu: kernel ${label} does not compile: ${why}`, { cause })
    }
  }
}

const keyOf = (kernel: Kernel, where: readonly Binding[]): string =>
  `${kernel.name} ${where.map(({ dtype, buffer, arena }) => `${buffer}${arena ? '' : dtype}`).join(' ')}`
