/**
 * The layering rule and the length rule of ARCHITECTURE.md as tests: which folder may import which, that the data
 * process never sees Node-API, that no C files use each other in a circle, that no retired name comes back, and that no C
 * function or file grows past what can be read at once (the linter watches TypeScript).
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, extname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { circlesAmong, circlesIn, declarationsOf, type Source, sourcesOf } from '../support/c-files.js';
import { retiredC } from '../support/retired-words.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Only the two programs construct adapters. */
const adapters = ['lib', 'model', 'store', 'host', 'datapath', 'backend', 'docker'];

/** A folder, or with `port` only the file named like its folder. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  lib: [],
  model: ['lib'],
  store: ['lib', 'model'],
  host: ['lib', 'model'],
  datapath: ['lib', 'model'],
  backend: ['lib', 'model'],
  docker: ['lib', 'model'],
  agent: ['lib', 'model', 'port:store', 'port:host', 'port:datapath', 'port:backend', 'port:docker'],
  doctor: ['lib', 'model', 'docker', 'host', 'agent/status.ts'],
  admin: ['lib', 'model', 'agent/status.ts'],
  web: ['lib', 'model', 'admin', 'agent/status.ts'],
  cli: ['lib', 'model', 'store/etcd/options.ts'],
  setup: ['lib', 'model', 'store', 'host', 'cli'],
  daemon: [...adapters, 'agent', 'admin', 'cli'],
  tool: [...adapters, 'agent', 'admin', 'cli', 'doctor', 'web', 'setup'],
  package: ['cli', 'tool'],
};

function importsOf(file: string): readonly string[] {
  const text = readFileSync(join(root, file), 'utf8');
  const specifiers = text.matchAll(/(?:\bfrom|\bimport\(|^import)\s*['"](\.[^'"]+)['"]/gm);
  return [...specifiers].map(([, specifier = '']) =>
    relative('src', join(dirname(file), specifier)).replace(/\.js$/, '.ts'),
  );
}

function isAllowed(from: string, target: string): boolean {
  const folder = target.split('/')[0] ?? '';
  if (folder === from) return true;
  return (mayImport[from] ?? []).some(
    rule => rule === folder || rule === target || (rule === `port:${folder}` && target === `${folder}/${folder}.ts`),
  );
}

/** Files below a folder whose path in the repository matches, sorted. */
function sources(folder: string, pattern: RegExp): readonly string[] {
  const names = readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' });
  return names
    .map(name => join(folder, name))
    .filter(name => pattern.test(name))
    .sort();
}

/** Name and length of each function of a C file in this repository's style: body braces in the first column. */
function functionsOf(file: string): readonly { readonly name: string; readonly lines: number }[] {
  const lines = readFileSync(join(root, file), 'utf8').split('\n');
  return lines.flatMap((line, at) => {
    const end = line === '{' ? lines.indexOf('}', at) : -1;
    return end < 0 ? [] : [{ name: `${file}: ${lines[at - 1] ?? ''}`, lines: end - at + 2 }];
  });
}

describe('layering', () => {
  test.each(Object.keys(mayImport))('%s imports only what it may', folder => {
    const files = sources(`src/${folder}`, /\.ts$/);
    expect(files).not.toEqual([]);
    const wrong = files.flatMap(file =>
      importsOf(file)
        .filter(target => !isAllowed(folder, target))
        .map(target => `${file} imports ${target}`),
    );
    expect(wrong).toEqual([]);
  });

  test('every folder of src has a rule', () => {
    const folders = new Set(sources('src', /^src\/.+\/.+\.ts$/).map(file => file.split('/')[1]));
    expect([...folders].filter(folder => !(folder && folder in mayImport))).toEqual([]);
  });

  test('the two programs begin in src, each in a file of its own', () => {
    const roots = sources('src', /^src\/[^/]+\.ts$/);
    expect(roots).toEqual(['src/tartan.ts', 'src/tartand.ts']);
  });

  test('the data process does not know Node-API', () => {
    const files = sources('native/datapath', /\.[ch]$/);
    expect(files).not.toEqual([]);
    expect(files.filter(file => /node_api\.h|addon\//.test(readFileSync(join(root, file), 'utf8')))).toEqual([]);
  });
});

test('the bytecode is of the sources that are there: npm run generate-bpf after a change', () => {
  const text = readFileSync(join(root, 'native/bpf/kernel-programs.h'), 'utf8');
  const named = [...text.matchAll(/^ \* ([0-9a-f]{64}) (\S+)$/gm)];
  const files = sources('native/bpf', /\.[ch]$/).filter(file => basename(file) !== 'kernel-programs.h');
  expect(named.map(([, , file]) => `native/${file}`)).toEqual(expect.arrayContaining([...files]));
  for (const [, digest, file = ''] of named)
    expect(
      createHash('sha256')
        .update(readFileSync(join(root, 'native', file)))
        .digest('hex'),
      file,
    ).toBe(digest);
});

test('no files of different folders of src import each other in a circle', () => {
  const files = sources('src', /\.ts$/).filter(file => !file.endsWith('.d.ts'));
  const folder = (file: string): string => file.split('/').slice(0, 2).join('/');
  const imports = new Map(files.map(file => [file, importsOf(file).map(target => `src/${target}`)]));
  const circles = circlesIn(imports).filter(way => new Set(way.split(' -> ').map(folder)).size > 1);
  expect(circles).toEqual([]);
});

describe('circles among C files', () => {
  test.each(['datapath', 'addon'])('the files of %s and shared use each other in one direction', folder => {
    const files = [...sources('native/shared', /\.c$/), ...sources(`native/${folder}`, /\.c$/)];
    expect(files.length).toBeGreaterThan(10);
    expect(circlesAmong(sourcesOf(files))).toEqual([]);
  });

  function source(file: string, text: string, ...names: readonly string[]): Source {
    return { file, text, definitions: names.map(name => ({ name, isOwn: name.startsWith('own_') })) };
  }

  test('a circle is found, over another file too', () => {
    const a = source('a.c', 'void f(void) { g(); }', 'f');
    const b = source('b.c', 'void g(void) { h(); }', 'g');
    const c = source('c.c', 'void h(void) { f(); }', 'h');
    expect(circlesAmong([a, b])).toEqual([]);
    expect(circlesAmong([a, b, c])).toContain('a.c -> b.c -> c.c -> a.c');
  });

  test('static functions of one name, members, comments and strings make no circle', () => {
    const a = source('a.c', 'static void own_x(void) { g(); }  void f(void) { own_x(); }', 'f', 'own_x');
    const b = source('b.c', '/* f() */ static void own_x(void) {}  void g(void) { own_x(); }', 'g', 'own_x');
    const c = source('c.c', 'void h(struct s *p) { p->g = p->t.f; puts("f()"); }', 'h');
    const d = source('d.c', 'static void f(void) {}  void k(void) { f(); h(); }', 'f', 'k');
    expect(circlesAmong([a, b, c, d])).toEqual([]);
  });
});

test('fault N16: no union is given its value by an initialiser, which may leave a part of it undefined', () => {
  const given = /union(?:\s+\w+)?(?:\s*\{[^}]*\})?\s+\w+(?:\[\w*\])?\s*=/;
  expect('	union bpf_attr a = { .map_type = 1 };').toMatch(given);
  expect('	union {\n\t\tchar space[8];\n\t} control = { 0 };').toMatch(given);
  const files = sources('native', /^native\/(addon|bpf|datapath|shared)\/.*\.[ch]$/);
  const texts = files.map(file => ({ file, text: readFileSync(join(root, file), 'utf8') }));
  expect(texts.filter(({ text }) => given.test(text)).map(({ file }) => file)).toEqual([]);
});

describe('retired names', () => {
  const files = [
    ...sources('native', /^native\/(addon|bpf|datapath|shared)\/.*\.[ch]$/),
    ...sources('test', /^test\/(native|fuzz)\/.*\.[ch]$/),
  ];

  test('no C file declares one, or is called by one', () => {
    const declared = declarationsOf(files);
    expect(declared.length).toBeGreaterThan(1000);
    const stems = files.map(file => ({ kind: 'file', name: basename(file, extname(file)), file }));
    const retired = new Set(retiredC);
    const wrong = [...declared, ...stems].filter(
      ({ kind, name }) => retired.has(name) || retired.has(`${kind} ${name}`),
    );
    expect(wrong).toEqual([]);
  });
});

describe('lengths', () => {
  const files = sources('native', /^native\/(addon|bpf|datapath|shared)\/.*\.[ch]$/);

  test('no C function is longer than 60 lines', () => {
    const functions = files.flatMap(functionsOf);
    expect(functions.filter(({ lines }) => lines > 60)).toEqual([]);
  });

  test('no C file is longer than 450 lines', () => {
    const lengths = files.map(file => ({ file, lines: readFileSync(join(root, file), 'utf8').split('\n').length - 1 }));
    expect(lengths.filter(({ lines }) => lines > 450)).toEqual([]);
  });
});
