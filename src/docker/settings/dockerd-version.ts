/** Asks dockerd for its version: once for each file that it is, because a pass every five seconds wants to know it. */
import { execFile } from 'node:child_process';
import { statSync } from 'node:fs';
import { promisify } from 'node:util';
import { childEnvironment, findProgram } from '../../lib/child-environment.js';

const timeoutMs = 10_000;
/** A file that gives no version may give one later: it was busy, or a library of it was being replaced. */
const failureKeptMs = 60_000;

export class DockerdVersion {
  readonly #program: string;
  #asked: { readonly identity: string; readonly major: number | undefined; readonly untilMs: number } | undefined;

  constructor(program: string) {
    this.#program = program;
  }

  /** @returns undefined where there is no dockerd, or one that does not tell its version */
  async major(): Promise<number | undefined> {
    const path = findProgram(this.#program);
    const identity = path === undefined ? undefined : identityOf(path);
    if (path === undefined || identity === undefined) return undefined;
    if (this.#asked?.identity === identity && performance.now() < this.#asked.untilMs) return this.#asked.major;
    const major = await askMajor(path);
    this.#asked = { identity, major, untilMs: major === undefined ? performance.now() + failureKeptMs : Infinity };
    return major;
  }
}

function identityOf(path: string): string | undefined {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  return stat && [path, stat.dev, stat.ino, stat.mtimeNs, stat.size].join(' ');
}

async function askMajor(path: string): Promise<number | undefined> {
  try {
    const options = { timeout: timeoutMs, env: childEnvironment() };
    const { stdout } = await promisify(execFile)(path, ['--version'], options);
    const major = /^Docker version (\d+)\./.exec(stdout)?.[1];
    return major === undefined ? undefined : Number(major);
  } catch {
    return undefined;
  }
}
