/**
 * Reads the files of variables that a unit names by EnvironmentFile= (systemd.exec(5)): `NAME=value` lines, comments of
 * `#` and `;`, quotes, backslashes before line ends. There is no shell: a value that names `$OTHER` means these letters.
 */
import { readFileSync } from 'node:fs';
import { errnoOf, messageOf } from '../lib/errors.js';

export interface EnvironmentFile {
  readonly path: string;
  readonly variables: ReadonlyMap<string, string>;
  /** Which file each variable is from, where there are several. */
  readonly origins?: ReadonlyMap<string, string>;
  /** Why it could not be read; undefined for a file that was. */
  readonly problem?: string;
}

/** Where packages put the settings of tartand: Debian's place, then Red Hat's. */
const places = ['/etc/default/tartand', '/etc/sysconfig/tartand'];

/** What `tartan join` writes; the administrator's file wins. */
export const joinFile = '/etc/tartan/join.env';

/**
 * @param below the file whose variables count where the other has not the same
 * @returns the first that exists, with what stands below it; undefined where no file is
 */
export function readDaemonEnvironment(
  paths: readonly string[] = places,
  below = joinFile,
): EnvironmentFile | undefined {
  const [file, joined] = [readFirst(paths), readFirst([below])];
  if (!file || !joined) return file ?? joined;
  const problem = file.problem ?? joined.problem;
  return {
    path: file.problem === undefined && problem !== undefined ? joined.path : file.path,
    variables: new Map([...joined.variables, ...file.variables]),
    origins: new Map([joined, file].flatMap(({ path, variables }) => [...variables.keys()].map(name => [name, path]))),
    ...(problem === undefined ? {} : { problem }),
  };
}

function readFirst(paths: readonly string[]): EnvironmentFile | undefined {
  for (const path of paths) {
    try {
      return { path, variables: readEnvironmentText(readFileSync(path, 'utf8')) };
    } catch (error) {
      const absent = errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR';
      if (!absent) return { path, variables: new Map(), problem: messageOf(error) };
    }
  }
  return undefined;
}

/** Writes what readEnvironmentText and systemd read as these variables. Values have no line ends. */
export function formatEnvironment(variables: ReadonlyMap<string, string>): string {
  return [...variables].map(([name, value]) => `${name}="${value.replace(/["\\`$]/g, '\\$&')}"\n`).join('');
}

/** The last of equal names counts. A line that is no assignment is passed over. */
export function readEnvironmentText(text: string): ReadonlyMap<string, string> {
  const variables = new Map<string, string>();
  const reader = new Reader(text.replaceAll('\r\n', '\n'));
  while (!reader.atEnd) {
    const assignment = reader.assignment();
    if (assignment) variables.set(...assignment);
  }
  return variables;
}

class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get atEnd(): boolean {
    return this.#at >= this.#text.length;
  }

  /** Reads to the end of a line, or of the lines that a backslash joins. */
  assignment(): readonly [string, string] | undefined {
    const name = this.#match(/[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*/y)?.[1];
    // A comment goes on behind a backslash, too.
    if (name === undefined) {
      this.#match(/(?:\\[^]|[^\\\n])*\n?/y);
      if (!this.atEnd && this.#text[this.#at] === '\\') this.#at++;
      return undefined;
    }
    return [name, this.#value()];
  }

  /** Pieces with and without quotes join; spaces at the end count within quotes only. */
  #value(): string {
    let value = '';
    let kept = 0;
    for (;;) {
      const quote = this.#match(/["']/y)?.[0];
      if (quote !== undefined) {
        value += this.#quoted(quote);
        kept = value.length;
        continue;
      }
      const piece = this.#match(/\\[^]|[^\\\n]/y)?.[0];
      if (piece === undefined) break;
      if (piece === '\\\n') continue;
      value += piece.length === 2 ? piece.slice(1) : piece;
      if (piece.length === 2 || !/\s/.test(piece)) kept = value.length;
    }
    this.#at++;
    return value.slice(0, kept);
  }

  /** A quote that is never closed takes the rest. */
  #quoted(quote: string): string {
    if (quote === "'") return this.#match(/([^']*)'?/y)?.[1] ?? '';
    const inner = this.#match(/((?:\\[^]|[^\\"])*)"?/y)?.[1] ?? '';
    return inner.replace(/\\([^])/g, (whole, one: string) => (one === '\n' ? '' : '"\\`$'.includes(one) ? one : whole));
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text);
    if (found) this.#at = pattern.lastIndex;
    return found;
  }
}
