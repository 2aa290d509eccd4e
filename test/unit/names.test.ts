/** The declared names of the sources, as the compiler reads them: no retired word, and one meaning for each export. */
import { basename, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { API } from 'typescript/unstable/sync';
import { SyntaxKind, type Node } from 'typescript/unstable/ast';
import { retiredFiles, retiredNames } from '../support/retired-words.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

interface Declared {
  readonly file: string;
  readonly name: string;
  readonly isExported: boolean;
}

let api: API;
const declared: Declared[] = [];
const files: string[] = [];

beforeAll(() => {
  api = new API();
  const [project] = api.updateSnapshot({ openProject: join(root, 'tsconfig.build.json') }).getProjects();
  for (const path of project?.program.getSourceFileNames() ?? []) {
    const file = relative(root, path);
    const source = file.startsWith('src/') ? project?.program.getSourceFile(path) : undefined;
    if (!source) continue;
    files.push(file);
    const visit = (node: Node): void => {
      const name = nameOf(node);
      if (name !== undefined) declared.push({ file, name, isExported: isExported(node) });
      node.forEachChild(child => void visit(child));
    };
    visit(source);
  }
});
afterAll(() => api.close());

/** Members and references have names too: all of them are declared somewhere. */
function nameOf(node: Node): string | undefined {
  const { name } = node as { readonly name?: { readonly text?: unknown } };
  return typeof name?.text === 'string' ? name.text.replace(/^#/, '') : undefined;
}

function isExported(node: Node): boolean {
  const statement = node.kind === SyntaxKind.VariableDeclaration ? node.parent?.parent : node;
  if (statement?.parent?.kind !== SyntaxKind.SourceFile) return false;
  const { modifiers = [] } = statement as { readonly modifiers?: readonly Node[] };
  return modifiers.some(({ kind }) => kind === SyntaxKind.ExportKeyword);
}

test('the compiler shows the names', () => {
  expect(files.length).toBeGreaterThan(100);
  expect(declared.map(({ name }) => name)).toContain('OwnLease');
});

test.each(retiredNames)('none of $where is called $names', ({ where, names }) => {
  const found = declared.filter(({ file, name }) => where.some(path => file.startsWith(path)) && names.includes(name));
  expect(found.map(({ file, name }) => `${file}: ${name}`)).toEqual([]);
});

test('no file has a retired name', () => {
  const retired = new Set(retiredFiles);
  expect(files.filter(file => retired.has(basename(file, '.ts')))).toEqual([]);
});

test('no exported name is declared in two files', () => {
  const owners = new Map<string, Set<string>>();
  for (const { file, name, isExported: shown } of declared)
    if (shown) owners.set(name, (owners.get(name) ?? new Set()).add(file));
  const shared = [...owners].filter(([, places]) => places.size > 1);
  expect(shared.map(([name, places]) => `${name}: ${[...places].join(', ')}`)).toEqual([]);
});
