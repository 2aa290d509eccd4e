/**
 * The layering rule and the length rule of ARCHITECTURE.md as tests: which folder may import which, that the data
 * process never sees Node-API, and that no C function or file grows past what can be read at once (the linter watches
 * TypeScript).
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

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
  admin: ['lib', 'model', 'agent/status.ts'],
  cli: ['lib', 'model', 'store/etcd/options.ts'],
  daemon: [...adapters, 'agent', 'admin', 'cli'],
  tool: [...adapters, 'agent', 'admin', 'cli'],
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

describe('lengths', () => {
  const files = sources('native', /^native\/(addon|datapath|shared)\/.*\.[ch]$/);

  test('no C function is longer than 60 lines', () => {
    const functions = files.flatMap(functionsOf);
    expect(functions.filter(({ lines }) => lines > 60)).toEqual([]);
  });

  test('no C file is much longer than 300 lines', () => {
    const lengths = files.map(file => ({ file, lines: readFileSync(join(root, file), 'utf8').split('\n').length }));
    expect(lengths.filter(({ lines }) => lines > 320)).toEqual([]);
  });
});
