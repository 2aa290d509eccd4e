/** Runs a program with its arguments as they are, never through a shell, with a bare environment and a time limit. */
import { spawn, type ChildProcess } from 'node:child_process';
import { childEnvironment } from '../../lib/child-environment.js';
import { errnoOf, messageOf } from '../../lib/errors.js';
import { known, unknown, type Fact } from '../../lib/fact.js';
import { shown } from '../../model/ip.js';

/**
 * @returns what the program wrote to standard output
 * @throws an error that isAbsent knows when there is no such program; a Hang; else an Error with the program's last words
 */
export type RunCommand = (file: string, args: readonly string[], input: string, signal: AbortSignal) => Promise<string>;

/** A program that does not answer or does not end. */
export class Hang extends Error {}

const timeoutMs = 5_000;
/** What a program that gave no answer and got SIGKILL is given to end. */
const killedMs = 500;
/** A host with a hundred thousand rules writes about 15 MB. */
const outputBytes = 128 * 1024 * 1024;
const errorBytes = 64 * 1024;
/** The kernel tells of a change a moment after the program that made it has ended. */
const forgetMs = 2_000;

/** Programs that got SIGKILL and have not ended, because the kernel does not let go of them. */
const stuck = new Map<string, ChildProcess>();
/** The processes that run now: a change of the rules by one of them is ours. */
const running = new Set<number>();

export function isOwnCommand(pid: number): boolean {
  return running.has(pid);
}

export const runCommand: RunCommand = (file, args, input, signal) => {
  signal.throwIfAborted();
  const hung = stuck.get(file);
  if (hung) throw new Hang(`${file}: process ${hung.pid} hangs and does not end: look at what holds it, or reboot`);
  return new Promise((resolve, reject) => {
    const env = childEnvironment();
    // A process group of its own: what the program has started ends with it.
    const child = spawn(file, [...args], { env, detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
    // A program that cannot be started, as for want of descriptors, may have no pipes: this event alone tells.
    child.on('error', reject);
    if (child.pid === undefined) return;
    const [output, words] = [new Output(child.stdout, outputBytes), new Output(child.stderr, errorBytes)];
    const stopWaiting = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
    };
    const settle = (error?: unknown): void => {
      stopWaiting();
      if (error === undefined) resolve(output.text);
      else reject(error instanceof Error ? error : new Error(messageOf(error)));
    };
    const abort = (): void => {
      kill(file, child);
      settle(signal.reason);
    };
    const endLate = (): void => {
      stopWaiting();
      kill(file, child);
      const error = new Hang(late);
      if (stuck.get(file) !== child) return settle(error);
      // Who asks again next does not meet one that is just ending.
      const grace = setTimeout(() => settle(error), killedMs);
      child.once('exit', () => {
        clearTimeout(grace);
        settle(error);
      });
    };
    const late = `${file}: no answer in ${timeoutMs / 1000} s, the program was ended: run '${[file, ...args].join(' ')}' and see what it waits for`;
    const timer = setTimeout(endLate, timeoutMs);
    signal.addEventListener('abort', abort, { once: true });
    running.add(child.pid);
    child.on('error', settle);
    child.on('exit', () => setTimeout(() => running.delete(child.pid ?? 0), forgetMs).unref());
    child.on('close', (code, how) => {
      if (output.isFull) settle(new Error(`${file}: wrote more than ${outputBytes} bytes`));
      else if (code === 0) settle();
      else settle(new Error(`${file}: ${lastWords(words.text) ?? `ended with ${code ?? how}`}`));
    });
    // A program may end before it has read everything: its exit status says why.
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
};

class Output {
  readonly #chunks: Buffer[] = [];
  #bytes = 0;

  constructor(stream: NodeJS.ReadableStream, limit: number) {
    stream.on('data', (chunk: Buffer) => {
      this.#bytes += chunk.length;
      this.isFull = this.#bytes > limit;
      if (!this.isFull) this.#chunks.push(chunk);
    });
    stream.on('error', () => {});
  }

  isFull = false;

  get text(): string {
    return Buffer.concat(this.#chunks).toString('latin1');
  }
}

/** Ends the program with all that it started, and does not wait for that: a process in the kernel may take for ever. */
function kill(file: string, child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    child.kill('SIGKILL');
  }
  for (const stream of [child.stdin, child.stdout, child.stderr]) stream?.destroy();
  if (child.exitCode !== null || child.signalCode !== null) return;
  stuck.set(file, child);
  child.unref();
  child.once('exit', () => {
    if (stuck.get(file) === child) stuck.delete(file);
  });
}

/** Recognizes a missing program: execvp(3) returns EACCES when it finds none and cannot search a directory of PATH. */
export function isAbsent(error: unknown): boolean {
  return ['ENOENT', 'EACCES'].includes(errnoOf(error) ?? '');
}

/** `hangs`: the fact is unknown because of a Hang. */
type ProgramFact<T> = Fact<T | undefined> & { readonly hangs?: boolean };

/**
 * Asks a program for a fact; the fact of a program that fails says why.
 * @returns undefined when there is no such program
 */
export async function programFact<T>(ask: () => Promise<T>): Promise<ProgramFact<T>> {
  try {
    return known(await ask());
  } catch (error) {
    return isAbsent(error) ? known(undefined) : { ...unknown(messageOf(error)), hangs: error instanceof Hang };
  }
}

function lastWords(stderr: string): string | undefined {
  const lines = stderr.split('\n').filter(line => line.trim() !== '');
  return lines.length === 0 ? undefined : lines.slice(0, 3).map(shown).join('; ');
}
