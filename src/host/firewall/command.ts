/** Runs a program with its arguments as they are, never through a shell, with a bare environment and a time limit. */
import { execFile } from 'node:child_process';
import { childEnvironment } from '../../lib/child-environment.js';
import { errnoOf, messageOf } from '../../lib/errors.js';
import { known, unknown, type Fact } from '../../lib/fact.js';
import { shown } from '../../model/ip.js';

/**
 * @returns what the program wrote to standard output
 * @throws an error that isAbsent knows when there is no such program; else an Error with the program's last words
 */
export type RunCommand = (file: string, args: readonly string[], input: string, signal: AbortSignal) => Promise<string>;

const timeoutMs = 20_000;
/** A host with a hundred thousand rules writes about 15 MB. */
const outputBytes = 128 * 1024 * 1024;

export const runCommand: RunCommand = (file, args, input, signal) =>
  new Promise((resolve, reject) => {
    const env = childEnvironment();
    const child = execFile(
      file,
      [...args],
      { env, signal, timeout: timeoutMs, maxBuffer: outputBytes, encoding: 'latin1' },
      (error, stdout, stderr) => {
        if (!error) return resolve(stdout);
        if (signal.aborted) return reject(signal.reason);
        if (isAbsent(error)) return reject(error);
        reject(new Error(`${file}: ${lastWords(stderr) ?? `ended with ${error.code ?? error.signal}`}`));
      },
    );
    // A program may end before it has read everything: its exit status says why.
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });

/** Recognizes a missing program: execvp(3) returns EACCES when it finds none and cannot search a directory of PATH. */
export function isAbsent(error: unknown): boolean {
  return ['ENOENT', 'EACCES'].includes(errnoOf(error) ?? '');
}

/**
 * Asks a program for a fact; the fact of a program that fails says why.
 * @returns undefined when there is no such program
 */
export async function programFact<T>(ask: () => Promise<T>): Promise<Fact<T | undefined>> {
  try {
    return known(await ask());
  } catch (error) {
    return isAbsent(error) ? known(undefined) : unknown(messageOf(error));
  }
}

function lastWords(stderr: string): string | undefined {
  const lines = stderr.split('\n').filter(line => line.trim() !== '');
  return lines.length === 0 ? undefined : lines.slice(0, 3).map(shown).join('; ');
}
