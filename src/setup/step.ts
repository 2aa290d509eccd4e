/**
 * The steps by which a host is set up. Each can be undone; when one fails, those before it are undone, the newest first,
 * so that the host is as it was.
 */
import { execFile } from 'node:child_process';
import { lstatSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { childEnvironment } from '../lib/child-environment.js';
import { errnoOf, messageOf, TartanError } from '../lib/errors.js';
import { readBounded, removeEmptyDirectory, writeFileAtomic } from '../lib/file.js';
import { shown } from '../model/ip.js';

export type Action =
  /** @see writeFileAtomic */
  | { readonly kind: 'write'; readonly path: string; readonly content: string; readonly mode: number }
  | { readonly kind: 'remove'; readonly path: string }
  | { readonly kind: 'run'; readonly command: readonly string[]; readonly undo?: readonly string[] }
  | { readonly kind: 'call'; readonly do: () => Promise<void>; readonly undo?: () => Promise<void> };

export interface SetupStep {
  /** What is done and how it is taken back, for people. */
  readonly text: string;
  readonly undo: string;
  readonly action: Action;
}

export function writeStep(path: string, content: string, mode: number, exists: boolean): SetupStep {
  const text = `write ${path} (mode 0${mode.toString(8)})`;
  return { text, undo: exists ? `tartan uninstall` : `rm ${path}`, action: { kind: 'write', path, content, mode } };
}

export function removeStep(path: string, undo: string): SetupStep {
  return { text: `remove ${path}`, undo, action: { kind: 'remove', path } };
}

export function runStep(command: readonly string[], undo?: readonly string[]): SetupStep {
  const action: Action = { kind: 'run', command, ...(undo ? { undo } : {}) };
  return { text: command.join(' '), undo: undo?.join(' ') ?? 'nothing', action };
}

export interface RunSetup {
  readonly say: (line: string) => void;
  /** Only says what would be done. */
  readonly dryRun: boolean;
  /** What is run after steps were undone, so that running programs see the files of before. */
  readonly settle?: readonly (readonly string[])[];
}

/** @throws TartanError HOST_REFUSED that names the step that failed; what was done before is undone then */
export async function runSetup(steps: readonly SetupStep[], { say, dryRun, settle = [] }: RunSetup): Promise<void> {
  const undos: { readonly text: string; readonly undo: () => Promise<void> }[] = [];
  for (const { text, undo, action } of steps) {
    say(`${dryRun ? 'would ' : ''}${text}   (undo: ${undo})`);
    if (dryRun) continue;
    try {
      // The undo of a step that failed half-way counts, too.
      const { run, back } = prepare(action);
      undos.push({ text, undo: back });
      await run();
    } catch (cause) {
      const stuck: string[] = [];
      for (const done of undos.reverse())
        await done.undo().catch(error => stuck.push(`${done.text}: ${messageOf(error)}`));
      for (const command of settle) await runProgram(command).catch(error => stuck.push(messageOf(error)));
      const state = stuck.length === 0 ? 'this host is as it was' : `not taken back: ${stuck.join('; ')}`;
      throw new TartanError('HOST_REFUSED', `${text}: ${messageOf(cause)}; ${state}`, { cause });
    }
  }
}

const maxFileBytes = 1024 * 1024;
/** Folders that steps make. */
const ownFolders = /^\/etc\/tartan(\/etcd)?$|\/docker\.service\.d$/;

function prepare(action: Action): { readonly run: () => Promise<void>; readonly back: () => Promise<void> } {
  switch (action.kind) {
    case 'write':
    case 'remove':
      return prepareFile(action);
    case 'run':
      return {
        run: async () => void (await runProgram(action.command)),
        back: async () => void (action.undo && (await runProgram(action.undo))),
      };
    case 'call':
      return { run: action.do, back: async () => action.undo?.() };
  }
}

function prepareFile(action: Extract<Action, { kind: 'write' | 'remove' }>): ReturnType<typeof prepare> {
  const { path } = action;
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat && !stat.isFile()) throw new Error(`${path} is no file: move it away`);
  const before = stat && readBounded(path, maxFileBytes);
  if (stat && before === undefined) throw new Error(`${path} cannot be read`);
  const remove = (): void => {
    rmSync(path, { force: true });
    for (let folder = dirname(path); ownFolders.test(folder); folder = dirname(folder)) removeEmptyDirectory(folder);
  };
  return {
    run: async () => {
      if (action.kind === 'remove') remove();
      else writeFileAtomic(path, action.content, action.mode);
    },
    back: async () => {
      if (before === undefined) remove();
      else writeFileAtomic(path, before, stat ? stat.mode & 0o7777 : 0o600);
    },
  };
}

/** A package manager downloads, and waits for another one. */
const runMs = 300_000;

/**
 * Runs a program without a shell and with a bare environment.
 * @returns what it wrote to standard output @throws Error with its last words
 */
export function runProgram(command: readonly string[], input = ''): Promise<string> {
  const [program = '', ...args] = command;
  const env = { ...childEnvironment(), DEBIAN_FRONTEND: 'noninteractive' };
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, { env, timeout: runMs, maxBuffer: maxFileBytes }, (error, stdout, stderr) => {
      if (!error) return resolve(stdout);
      if (errnoOf(error) === 'ENOENT') return reject(new Error(`there is no program ${program}`));
      const words = stderr.trim().split('\n').slice(-3).map(shown).join('; ');
      reject(new Error(words || `${program} ended with ${error.code ?? error.signal ?? 'an error'}`));
    });
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}
