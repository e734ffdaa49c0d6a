export const kebabCase = (name: string): string => name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)

export const snakeCase = (name: string): string => kebabCase(name).replaceAll('-', '_')

export const camelCase = (name: string): string => name.replace(/[-_]([a-z0-9])/g, (_, c: string) => c.toUpperCase())

/** `--learning_rate` is `--learning-rate`. */
export const kebabFlag = (argument: string): string =>
  argument.replace(/^--\w[\w-]*/, (flag) => flag.replaceAll('_', '-'))
