/** Programs in the hosts of a datapath lab: built for the tests of one file, started, told to stop, and their reports. */
import { mkdtempSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { ended, root, run, start, type Running } from '../support/tools.js';
import { until, type Host, type Lab } from './datapath-lab.js';

const flags = ['-D_GNU_SOURCE', '-std=c11', '-O2', '-Wall', '-Wextra', '-Werror'];

/** Compiles C files of the tree; the function given back says where the program of one of them is. */
export function usePrograms(...sources: readonly string[]): (name: string) => string {
  const built = { directory: '' };
  beforeAll(async () => {
    built.directory = mkdtempSync(`/tmp/tartan-programs-${process.pid}-`);
    for (const source of sources)
      await run(['gcc', ...flags, '-o', join(built.directory, basename(source, '.c')), join(root, source)]);
  });
  afterAll(() => rmSync(built.directory, { recursive: true, force: true }));
  return name => join(built.directory, name);
}

export function inside(lab: Lab, host: Host, command: readonly string[]): readonly string[] {
  return lab.enter(host, command);
}

/** A program that says "ready" and, at its end, a line of JSON. */
export class Reporter {
  readonly #child: Running;
  readonly #closed: Promise<void>;
  #said = '';

  constructor(command: readonly string[]) {
    this.#child = start(command);
    this.#closed = new Promise(resolve => this.#child.once('close', () => resolve()));
    this.#child.stdout.setEncoding('utf8').on('data', (part: string) => (this.#said += part));
  }

  static async ready(command: readonly string[]): Promise<Reporter> {
    const reporter = new Reporter(command);
    await until(
      `${command.join(' ')} ready`,
      () => reporter.#said,
      said => said.includes('ready'),
    );
    return reporter;
  }

  stop(): void {
    this.#child.kill('SIGTERM');
  }

  async report(): Promise<Record<string, unknown>> {
    await this.#closed;
    const status = await ended(this.#child);
    const line = this.#said.trim().split('\n').at(-1) ?? '';
    if (status !== 0) throw new Error(`ended with ${status}: ${line}`);
    return JSON.parse(line);
  }
}
