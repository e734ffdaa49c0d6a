// npm run docs: docs/api.md, made from the docstrings of every name that sdk/index.ts exports. The compiler's API is still
// called unstable, so the version of TypeScript in package.json is exact.
import { writeFileSync } from 'node:fs'
import { fileURLToPath, pathToFileURL } from 'node:url'
import {
  type ClassDeclaration,
  type ClassElement,
  type FunctionLikeDeclaration,
  type InterfaceDeclaration,
  type Node,
  type ParameterDeclaration,
  SyntaxKind,
  type TypeElement,
} from 'typescript/unstable/ast'
import {
  isClassDeclaration,
  isConstructorDeclaration,
  isFunctionDeclaration,
  isIdentifier,
  isInterfaceDeclaration,
  isMethodDeclaration,
  isMethodSignatureDeclaration,
  isPropertyDeclaration,
  isPropertySignatureDeclaration,
  isTypeAliasDeclaration,
  isVariableDeclaration,
} from 'typescript/unstable/ast/is'
import { API, type Checker, type Symbol as Name, SymbolFlags } from 'typescript/unstable/sync'
import { loraConfig } from '../../sdk/formats/lora-config.ts'
import { explain, type OptionSchema, type OptionTable, sentence } from '../../sdk/option-table.ts'
import { distillConfig, grpoConfig, sftConfig } from '../../sdk/train/config.ts'

/** Types that are made from a table of options. */
const tables: Readonly<Record<string, OptionTable>> = {
  SFTConfig: sftConfig,
  DistillConfig: distillConfig,
  GRPOConfig: grpoConfig,
  LoraConfig: loraConfig,
}

const root = fileURLToPath(new URL('../../', import.meta.url))

const kinds = ['Functions', 'Classes', 'Errors', 'Values', 'Types'] as const
type Kind = (typeof kinds)[number]
interface Entry {
  readonly name: string
  readonly kind: Kind
  /** Markdown without the heading. */
  readonly text: string
}

/** The reference as Markdown. */
export function apiReference(): string {
  const api = new API({ cwd: root })
  try {
    const config = `${root}tsconfig.json`
    const { program, checker } = api.updateSnapshot({ openProjects: [config] }).getProject(config)!
    const index = checker.getSymbolAtLocation(program.getSourceFile(`${root}sdk/index.ts`)!)!
    const names = checker.getExportsOfModule(index)
    const known = new Set(names.map(({ name }) => name))
    return page(
      names.map((name) => entry(checker, name, known)),
      known,
    )
  } finally {
    api.close()
  }
}

function page(entries: readonly Entry[], known: ReadonlySet<string>): string {
  const lines = ['# API reference', '', 'Made from the docstrings by `npm run docs`: change those, not this file.', '']
  for (const kind of kinds) {
    const of = entries.filter((e) => e.kind === kind).sort((a, b) => (a.name < b.name ? -1 : 1))
    if (of.length === 0) continue
    lines.push(`## ${kind}`, '')
    for (const { name, text } of of) lines.push(`### ${name}`, '', linked(text, known, name), '')
  }
  return `${lines.join('\n').trimEnd()}\n`
}

/** {@link X} and `X` of a public name lead there. */
const linked = (text: string, known: ReadonlySet<string>, self: string): string =>
  text
    .replace(/\{@link (\w+)\}/g, '`$1`')
    .replace(/`(\w+)`/g, (code, name) =>
      known.has(name) && name !== self ? `[${code}](#${name.toLowerCase()})` : code,
    )

function entry(checker: Checker, exported: Name, known: ReadonlySet<string>): Entry {
  const name = exported.flags & SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported
  const node = name.declarations[0].resolve()!
  const doc = docOf(checker, name)
  const of = (kind: Kind, ...blocks: string[]): Entry => ({
    name: exported.name,
    kind,
    text: blocks.filter((block) => block !== '').join('\n\n'),
  })
  if (isFunctionDeclaration(node)) return of('Functions', code(signature(checker, exported.name, node)), doc)
  if (isInterfaceDeclaration(node) || isClassDeclaration(node)) {
    const { parents, members } = flattened(checker, node, known)
    const extending = parents.length > 0 ? `Extends ${parents.map((parent) => code(parent)).join(' and ')}.` : ''
    if (exported.name.endsWith('Error')) return of('Errors', doc, extending)
    return of(isInterfaceDeclaration(node) ? 'Types' : 'Classes', doc, extending, members.join('\n'))
  }
  if (Object.hasOwn(tables, exported.name)) return of('Types', doc, options(tables[exported.name]))
  if (isTypeAliasDeclaration(node)) return of('Types', code(node.type.getText()), doc)
  if (isVariableDeclaration(node))
    return of('Values', code(node.type?.getText() ?? checker.typeToString(checker.getTypeOfSymbol(name)!)), doc)
  throw new Error(`${exported.name}: ${SyntaxKind[node.kind]} is not known to test/docs/api-reference.ts`)
}

/** A bullet for each option of a table. */
function options(table: OptionTable): string {
  const lines = Object.entries(table).map(([name, schema]) => {
    const { default: usual } = explain(schema)
    const isNeeded = usual === undefined && !schema.safeParse(undefined).success
    return bullet(`${name}${isNeeded ? '' : '?'}: ${typeOf(explain(schema))}`, sentence(schema))
  })
  return lines.join('\n')
}

/** The type of an option as TypeScript writes it. */
function typeOf(s: OptionSchema): string {
  if (s.anyOf) return s.anyOf.map(typeOf).join(' | ')
  if (s.enum) return s.enum.map((word) => `'${word}'`).join(' | ')
  if (s.type === 'array') return `readonly ${typeOf(s.items!)}[]`
  if (s.type === 'object') return `Readonly<Record<string, ${typeOf(s.additionalProperties!)}>>`
  return s.type === 'integer' ? 'number' : s.type!
}

/** Its own members and those of parents that are not in the reference; the others by name. */
function flattened(
  checker: Checker,
  node: ClassDeclaration | InterfaceDeclaration,
  known: ReadonlySet<string>,
): { parents: string[]; members: string[] } {
  const members = [...node.members].map((member) => memberLine(checker, member)).filter((line) => line !== '')
  const parents: string[] = []
  for (const type of node.heritageClauses?.flatMap((clause) => [...clause.types]) ?? []) {
    const parent = checker.getTypeAtLocation(type)?.getSymbol()?.declarations[0]?.resolve()
    const hidden = parent && isInterfaceDeclaration(parent) && !known.has(parent.name.getText())
    if (!hidden || isClassDeclaration(node)) parents.push(type.getText())
    else {
      const more = flattened(checker, parent, known)
      parents.push(...more.parents)
      members.push(...more.members)
    }
  }
  return { parents, members }
}

/** One bullet, or nothing for what is private or `@internal`. */
function memberLine(checker: Checker, member: ClassElement | TypeElement): string {
  const modifiers = (member as { modifiers?: Iterable<Node> }).modifiers
  const words = [...(modifiers ?? [])].map((modifier) => modifier.getText())
  if (words.includes('private') || member.getFullText().includes('@internal')) return ''
  const nameNode = (member as { name?: Node }).name
  const name = nameNode?.getText() ?? 'constructor'
  const symbol = nameNode && checker.getSymbolAtLocation(nameNode)
  const doc = (symbol ? docOf(checker, symbol) : '').replaceAll('\n', '\n  ')
  if (isConstructorDeclaration(member) || isMethodDeclaration(member) || isMethodSignatureDeclaration(member)) {
    const [before, called] = isConstructorDeclaration(member)
      ? ['new ', (member.parent as { name?: Node }).name!.getText()]
      : [words.includes('static') ? 'static ' : '', name]
    return bullet(before + signature(checker, called, member as FunctionLikeDeclaration), doc)
  }
  if (!isPropertySignatureDeclaration(member) && !isPropertyDeclaration(member)) return ''
  const type = member.type?.getText() ?? checker.typeToString(checker.getTypeOfSymbol(symbol!)!)
  const optional = (member as { questionToken?: Node; postfixToken?: Node }).postfixToken ? '?' : ''
  return bullet(`${name}${optional}: ${type}`, doc)
}

const bullet = (declared: string, doc: string): string => `- ${code(declared)}${doc === '' ? '' : `  \n  ${doc}`}`

/** In one line, with comments and layout gone; the members of a type literal, a line each in the source, get semicolons. */
const code = (text: string): string => {
  const bare = text.replace(/\/\*\*[\s\S]*?\*\//g, '').replace(/readonly (?=\w+\??:)/g, '')
  const line = bare.replace(/([^{|;,\s])\s*\n\s*(?=\w+\??:)/g, '$1; ').replace(/\s+/g, ' ')
  return `\`${line.trim().replace(/^\| /, '')}\``
}

function signature(checker: Checker, name: string, node: FunctionLikeDeclaration): string {
  const generic = node.typeParameters ? `<${[...node.typeParameters].map((t) => t.getText()).join(', ')}>` : ''
  const result = node.type ? `: ${node.type.getText()}` : ''
  return `${name}${generic}(${[...node.parameters].map((p) => parameter(checker, p)).join(', ')})${result}`
}

function parameter(checker: Checker, node: ParameterDeclaration): string {
  const name = isIdentifier(node.name) ? node.name.getText() : 'options'
  const optional = node.initializer || node.questionToken ? '?' : ''
  const type = node.type?.getText() ?? checker.typeToString(checker.getTypeAtLocation(node)!)
  return `${node.dotDotDotToken ? '...' : ''}${name}${optional}: ${type}`
}

function docOf(checker: Checker, name: Name): string {
  const tags = name.getJsDocTags(checker).map((tag) => {
    const text = (tag.text ?? '').replace(/\s*\n\s*/g, ' ').trim()
    if (tag.name === 'throws') return `Throws ${text}.`
    if (tag.name === 'returns') return `Returns ${text}.`
    if (tag.name === 'param') return text.replace(/^(\w+)\s*-?\s*(.*)$/, '`$1`: $2.')
    return ''
  })
  const text = [name.getDocumentationComment(checker).trim(), ...tags].filter((block) => block !== '').join('\n\n')
  return text.replace(/\b\w*Error\b(?!`)/g, (error) => (error === 'Error' ? error : `\`${error}\``))
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) writeFileSync(`${root}docs/api.md`, apiReference())
