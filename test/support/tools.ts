/**
 * Programs that the tests start: where they are (PATH, then what set-up unpacked into .cache) and the one way to
 * run them. Arguments are always an array, never a shell's text.
 */
import { execFile, execFileSync, spawn, type ChildProcess, type ChildProcessByStdio } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, renameSync, statSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isExecutable } from '../../src/lib/file.js';

/** The tree; named by demo.sh, which runs compiled copies of these files from elsewhere. */
export const root = process.env['TARTAN_TREE'] ?? fileURLToPath(new URL('../..', import.meta.url));
const unpacked = join(root, '.cache/tools');
const prometheus = join(root, '.cache/prometheus');

export const probe = join(root, 'native/build/probe');
export const flows = join(root, 'native/build/flows');
export const daemonProgram = join(root, 'dist/tartand.js');
export const toolProgram = join(root, 'dist/tartan.js');

/** Libraries that the machine does not have were unpacked beside the programs. */
function libraryDirectories(): readonly string[] {
  return ['usr/lib', 'lib']
    .map(name => join(unpacked, name))
    .filter(existsSync)
    .flatMap(directory => readdirSync(directory).map(name => join(directory, name)))
    .filter(directory => directory.endsWith('-linux-gnu'));
}

function environment(): NodeJS.ProcessEnv {
  const { DOCKER_HOST: _host, DOCKER_CONTEXT: _context, ...inherited } = process.env;
  const own = Object.fromEntries(
    Object.entries(inherited).filter(([name]) => !/^(TARTAN|FLANNELD|ETCDCTL)_/.test(name)),
  );
  // Packages from before the merge of / and /usr have a bin of their own.
  const directories = ['usr/sbin', 'usr/bin', 'bin'].map(name => join(unpacked, name));
  directories.push(join(prometheus, 'usr/bin'));
  const path = [own['PATH'] ?? '', '/usr/local/sbin', '/usr/sbin', '/sbin', ...directories].join(delimiter);
  const libraries = libraryDirectories();
  return {
    ...own,
    PATH: path,
    ETCDCTL_API: '3',
    ...(libraries.length > 0 && { LD_LIBRARY_PATH: libraries.join(':') }),
  };
}

export const toolEnvironment: NodeJS.ProcessEnv = environment();

export function findTool(name: string): string | undefined {
  const directories = (toolEnvironment['PATH'] ?? '').split(delimiter);
  return directories.map(directory => join(directory, name)).find(isExecutable);
}

/** @param variable of the environment, which names another program to use */
export function needTool(variable: string, name: string): string {
  const found = process.env[variable] || findTool(name);
  if (!found) throw new Error(`no ${name}: set ${variable}, or run test/support/setup.sh`);
  return found;
}

export interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly input?: string | Buffer;
  readonly timeoutMs?: number;
  readonly environment?: Readonly<Record<string, string>>;
}

/** How many times slower than usual this machine is: a guest of guest.ts is. */
export const patience = Number(process.env['TARTAN_PATIENCE'] ?? 1);

let refusing = false;

/** From now on nothing is started: what a lab made is being removed. */
export function startNothingMore(): void {
  refusing = true;
}

function refuse(command: readonly string[]): void {
  if (refusing) throw new Error(`not started, everything is being removed: ${command.join(' ')}`);
}

/** Runs to the end, whatever the exit status; 124 when it took too long. */
export async function attempt(command: readonly string[], o: RunOptions = {}): Promise<Outcome> {
  refuse(command);
  const [file = '', ...args] = command;
  const options = {
    env: { ...toolEnvironment, ...o.environment },
    timeout: o.timeoutMs ?? 60_000,
    maxBuffer: 64 << 20,
  };
  return new Promise((resolve, reject) => {
    const child = execFile(file, args, { ...options, killSignal: 'SIGKILL' }, (error, stdout, stderr) => {
      if (error && typeof error.code === 'string') reject(error);
      else resolve({ status: error?.killed ? 124 : (child.exitCode ?? 128), stdout, stderr });
    });
    child.stdin?.on('error', () => {});
    child.stdin?.end(o.input ?? '');
  });
}

/** Compiles a C file of the tree into a library to be preloaded (ld.so(8)). @returns its path */
export async function makePreload(source: string, library: string): Promise<string> {
  await run(['gcc', '-D_GNU_SOURCE', '-shared', '-fPIC', '-o', library, join(root, source)]);
  return library;
}

/** Compiles a C file of the tree into a program, if it is newer than that. @param output its path */
export function compile(source: string, output: string): void {
  const made = statSync(output, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (made > statSync(join(root, source)).mtimeMs) return;
  mkdirSync(dirname(output), { recursive: true });
  const flags = ['-D_GNU_SOURCE', '-std=c11', '-O2', '-Wall', '-Wextra', '-Wconversion', '-Wshadow', '-Werror'];
  // Another file of tests may make it or run it meanwhile.
  const fresh = `${output}.${process.pid}`;
  execFileSync('gcc', [...flags, '-o', fresh, join(root, source)]);
  renameSync(fresh, output);
}

/** Runs to the end and must succeed; its standard output. */
export async function run(command: readonly string[], o: RunOptions = {}): Promise<string> {
  const { status, stdout, stderr } = await attempt(command, o);
  if (status !== 0) throw new Error(`${command.join(' ')}: exit status ${status}: ${stderr || stdout}`);
  return stdout;
}

export type Running = ChildProcessByStdio<Writable, Readable, Readable>;

/** Talks over pipes and ends with this process's terminal. */
export function start(command: readonly string[]): Running {
  refuse(command);
  const [file = '', ...args] = command;
  const child = spawn(file, args, { env: toolEnvironment, stdio: ['pipe', 'pipe', 'pipe'] });
  child.on('error', () => {});
  child.stdin.on('error', () => {});
  return child;
}

/** Says all it says to a file or descriptor, in a session of its own: it may outlive this process. */
export function startService(
  command: readonly string[],
  output: string | number,
  extra: Readonly<Record<string, string>> = {},
): ChildProcess {
  refuse(command);
  const [file = '', ...args] = command;
  const log = typeof output === 'number' ? output : openSync(output, 'a');
  const child = spawn(file, args, {
    env: { ...toolEnvironment, ...extra },
    stdio: ['ignore', log, log],
    detached: true,
  });
  child.on('error', () => {});
  if (log !== output) closeSync(log);
  return child;
}

export function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null || child.pid === undefined;
}

/** Exit status, or the name of the signal that ended it. */
export async function ended(child: ChildProcess): Promise<number | string> {
  if (!hasEnded(child)) await new Promise(resolve => child.once('exit', resolve));
  return child.exitCode ?? child.signalCode ?? 'not started';
}

/** Asks again and again until the answer is neither undefined nor false; fails with what it waited for. */
export async function until<T>(
  what: string,
  ask: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = 15_000,
): Promise<T> {
  let last: unknown;
  for (const end = performance.now() + timeoutMs * patience; performance.now() < end; await delay(25)) {
    try {
      const answer = await ask();
      if (answer !== undefined && answer !== false) return answer;
      last = undefined;
    } catch (error) {
      last = error;
    }
  }
  throw new Error(`not within ${timeoutMs * patience} ms: ${what}`, { cause: last });
}
