/**
 * The programs that the bench runs. Each one has a limit in time, and each one is ended by its pid: those still running
 * when the bench ends go with its pid namespace (run.sh).
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';

/** The tree that the bench was started in. */
export const tree = process.env['BENCH_TREE'] ?? process.cwd();

const defaultLimitMs = 30_000;
/** A daemon may write for a long time. */
const keptErrors = 65_536;

/** A small program of the bench, built by run.sh. */
export function program(name: string): string {
  return join(tree, '.cache/bench/bin', name);
}

export interface StartOptions {
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** A program that was started; `close` ends it. */
export class Running {
  readonly #command: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<string>;
  #output = '';
  #errors = '';
  #over = false;
  #seen = (): void => {};

  constructor(command: readonly string[], options: StartOptions = {}) {
    this.#command = command.join(' ');
    const [file = '', ...args] = command;
    this.#child = spawn(file, args, { stdio: 'pipe', env: { ...process.env, ...options.env } });
    this.#child.stdout?.setEncoding('utf8').on('data', (part: string) => {
      this.#output += part;
      this.#seen();
    });
    this.#child.stderr?.setEncoding('utf8').on('data', (part: string) => {
      this.#errors = (this.#errors + part).slice(-keptErrors);
    });
    this.#child.stdin?.on('error', () => {});
    if (options.input !== undefined) this.#child.stdin?.end(options.input);
    this.#ended = new Promise(resolve => {
      this.#child.once('error', error => resolve(error.message));
      this.#child.once('close', (code, signal) => resolve(String(code ?? signal)));
    });
    void this.#ended.then(() => {
      this.#over = true;
      this.#seen();
    });
  }

  get over(): boolean {
    return this.#over;
  }

  /** The end of what it wrote, for an error message. */
  get said(): string {
    return (this.#errors.trim() || this.#output.trim()).slice(-1000);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Text on its standard input. */
  tell(text: string): void {
    this.#child.stdin?.write(text);
  }

  /** The first line that is not taken yet and that `wanted` matches; those before it are dropped. */
  async line(wanted: RegExp, limitMs = defaultLimitMs): Promise<string> {
    const limit = AbortSignal.timeout(limitMs);
    limit.addEventListener('abort', () => this.#seen());
    for (;;) {
      const lines = this.#output.split('\n');
      const at = lines.slice(0, -1).findIndex(line => wanted.test(line));
      if (at >= 0) {
        this.#output = lines.slice(at + 1).join('\n');
        return lines[at] ?? '';
      }
      if (this.#over || limit.aborted)
        throw this.#error(this.#over ? 'ended' : `said nothing of ${wanted} in ${limitMs} ms`);
      await new Promise<void>(resolve => (this.#seen = resolve));
    }
  }

  /** Its standard output when it has ended by itself. */
  async output(limitMs = defaultLimitMs): Promise<string> {
    const limit = setTimeout(() => this.#child.kill('SIGKILL'), limitMs);
    const status = await this.#ended;
    clearTimeout(limit);
    if (status !== '0') throw this.#error(`ended with ${status}`);
    return this.#output;
  }

  signal(name: 'SIGTERM'): void {
    this.#child.kill(name);
  }

  async close(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }

  #error(what: string): Error {
    return new Error(`'${this.#command}' ${what}: ${this.said}`);
  }
}

/** @returns its standard output @throws Error when it fails or takes too long */
export function run(command: readonly string[], options: StartOptions = {}, limitMs = defaultLimitMs): Promise<string> {
  return new Running(command, { input: '', ...options }).output(limitMs);
}
