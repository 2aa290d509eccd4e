/** What the C files of the tree declare, as universal-ctags lists it, and which of them use each other in a circle. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './tools.js';

export interface Declaration {
  /** Of ctags: function, variable, struct, member, macro ... */
  readonly kind: string;
  readonly name: string;
  readonly file: string;
  /** Static: no other file can use it. */
  readonly isOwn: boolean;
}

/** @param files paths in the tree */
export function declarationsOf(files: readonly string[]): readonly Declaration[] {
  const options = ['-x', '--languages=C', '--langmap=C:.c.h', '--kinds-C=+p', '--_xformat=%K %N %F %f'];
  const listing = execFileSync('ctags', [...options, ...files], { cwd: root, encoding: 'utf8', maxBuffer: 1 << 24 });
  return listing.split('\n').flatMap(line => {
    const [kind = '', name = '', file = '', scope] = line.split(' ');
    return name === '' ? [] : [{ kind, name, file, isOwn: scope === 'file' }];
  });
}

/** Text of a C file, and what it defines. */
export interface Source {
  readonly file: string;
  readonly text: string;
  readonly definitions: readonly Pick<Declaration, 'name' | 'isOwn'>[];
}

/** @param files paths of C files in the tree */
export function sourcesOf(files: readonly string[]): readonly Source[] {
  const definitions = declarationsOf(files).filter(({ kind }) => kind === 'function' || kind === 'variable');
  return files.map(file => ({
    file,
    text: readFileSync(join(root, file), 'utf8'),
    definitions: definitions.filter(definition => definition.file === file),
  }));
}

/** Identifiers of a C text that may be functions or objects: no comments, strings and members. */
function identifiersOf(text: string): ReadonlySet<string> {
  const code = text.replace(/\/\*[^]*?\*\/|\/\/.*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|^#\s*include.*/gm, ' ');
  return new Set(Array.from(code.matchAll(/(?<!\.\s*|->\s*|\w)[A-Za-z_]\w*/g), ([name]) => name));
}

/** For each file the others that it uses: it names what they define, and defines nothing of that name itself. */
function usesOf(sources: readonly Source[]): ReadonlyMap<string, readonly string[]> {
  return new Map(
    sources.map(({ file, text, definitions }) => {
      const own = new Set(definitions.map(({ name }) => name));
      const used = identifiersOf(text);
      const others = sources.filter(
        other =>
          other.file !== file &&
          other.definitions.some(({ name, isOwn }) => !isOwn && used.has(name) && !own.has(name)),
      );
      return [file, others.map(other => other.file)];
    }),
  );
}

export function circlesAmong(sources: readonly Source[]): readonly string[] {
  return circlesIn(usesOf(sources));
}

/** Each file that can be reached from itself, with the way: "a.c -> b.c -> a.c". */
export function circlesIn(uses: ReadonlyMap<string, readonly string[]>): readonly string[] {
  return [...uses.keys()].flatMap(file => {
    const seen = new Set<string>();
    const ways = [[file]];
    for (let way = ways.shift(); way !== undefined; way = ways.shift()) {
      for (const next of uses.get(way.at(-1) ?? '') ?? []) {
        if (next === file) return [[...way, next].join(' -> ')];
        if (!seen.has(next)) ways.push([...way, next]);
        seen.add(next);
      }
    }
    return [];
  });
}
