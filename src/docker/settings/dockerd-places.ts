/**
 * Finds where dockerd gets flags from on this host: the settings files of the distributions, its systemd unit with
 * drop-ins and the files these name, and the command line of the running dockerd.
 */
import { readTextFile } from '../../lib/file.js';
import { readdirSync, readlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { errnoOf, messageOf } from '../../lib/errors.js';
import { parseDockerdFlags, type DockerdFlag } from './dockerd-options.js';
import { withVariables } from './env-file.js';
import { known, unknown, factValue, type Fact } from '../../lib/fact.js';
import { dockerVariables, gateFile } from './settings.js';

export interface PlacedFlag {
  readonly flag: DockerdFlag;
  /** A file, or the running dockerd. */
  readonly place: string;
  /** The running dockerd has the flag; it is gone once dockerd starts without it. */
  readonly running: boolean;
}

const settingsFiles = ['/etc/default/docker', '/etc/sysconfig/docker', '/etc/sysconfig/docker-network'];
/** The first folder that has a unit wins, systemd.unit(5). */
const unitFolders = [
  '/etc/systemd/system',
  '/run/systemd/system',
  '/usr/local/lib/systemd/system',
  '/usr/lib/systemd/system',
  '/lib/systemd/system',
];
const pidFiles = ['/run/docker.pid', '/var/run/docker.pid'];

/**
 * @param own our own file: the flags in our variables are not returned, those in variables of others are; its copy is
 *   made anew before dockerd starts, and not read
 * @param root the folder below which the host's files are
 */
export function findDockerdFlags(own: string, root = '/'): readonly PlacedFlag[] {
  const unit = readUnit(root);
  const files = [...new Set([...settingsFiles, ...unit.environmentFiles])].filter(
    path => path !== own && path !== gateFile(own),
  );
  const texts = [
    { place: own, text: withoutComments(withVariables(readText(own), '', dockerVariables), '#') },
    ...files.map(place => ({ place, text: withoutComments(readText(join(root, place)) ?? '', '#') })),
    ...unit.lines,
  ];
  const process = factValue(findDockerd(root));
  return [
    ...texts.flatMap(({ place, text }) => flagsIn(text).map(flag => ({ flag, place, running: false }))),
    ...parseDockerdFlags(process?.words ?? []).map(flag => ({
      flag,
      place: `the running dockerd (pid ${process?.pid})`,
      running: true,
    })),
  ];
}

export function flagsIn(text: string): readonly DockerdFlag[] {
  return parseDockerdFlags(wordsOf(text));
}

/** Splits a line of a shell or of systemd into words, whatever the quotes; `NAME=--flag` gives `--flag`. */
function wordsOf(text: string): readonly string[] {
  return text.split(/[\s"';]+/).map(word => word.replace(/^\w+=(?=-)/, ''));
}

export interface DockerdProcess {
  readonly pid: string;
  /** The command line without the program's name. */
  readonly words: readonly string[];
}

/** Finds dockerd by its pid file, else the one in this network namespace, whose rules and bridge we see. */
export function findDockerd(root = '/'): Fact<DockerdProcess | undefined> {
  try {
    const pid = pidFiles.map(path => (readText(join(root, path)) ?? '').trim()).find(text => /^[1-9]\d*$/.test(text));
    // The pid may be another process's by now.
    const process = pid === undefined ? undefined : readProcess(pid, root);
    if (process) return known(process);
    const own = readlinkSync(join(root, 'proc/self/ns/net'));
    const pids = readdirSync(join(root, 'proc')).filter(name => /^\d+$/.test(name));
    return known(pids.flatMap(pid => readProcess(pid, root) ?? []).find(({ pid }) => networkOf(pid, root) === own));
  } catch (error) {
    return unknown(messageOf(error));
  }
}

/** @returns undefined for any other program */
function readProcess(pid: string, root: string): DockerdProcess | undefined {
  const [program = '', ...words] = (readText(join(root, 'proc', pid, 'cmdline')) ?? '').split('\0');
  return basename(program) === 'dockerd' ? { pid, words: words.slice(0, -1) } : undefined;
}

/** @returns undefined for a process that has ended */
function networkOf(pid: string, root: string): string | undefined {
  try {
    return readlinkSync(join(root, 'proc', pid, 'ns/net'));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

interface UnitLines {
  readonly lines: readonly { readonly place: string; readonly text: string }[];
  readonly environmentFiles: readonly string[];
}

/** Reads the lines of docker.service that remain once drop-ins have replaced and reset those before them. */
function readUnit(root: string): UnitLines {
  const settings = new Map<string, { place: string; text: string }[]>();
  for (const place of unitFiles(root)) {
    const text = withoutComments(readText(join(root, place)) ?? '', '#;').replace(/\\\n/g, ' ');
    for (const line of text.split('\n')) {
      const [, name = '', value = ''] = /^\s*(ExecStart|Environment|EnvironmentFile)\s*=\s*(.*)$/.exec(line) ?? [];
      if (name === '') continue;
      settings.set(name, value === '' ? [] : [...(settings.get(name) ?? []), { place, text: value }]);
    }
  }
  const environmentFiles = (settings.get('EnvironmentFile') ?? []).map(({ text }) => text.trim().replace(/^-/, ''));
  return { lines: ['ExecStart', 'Environment'].flatMap(name => settings.get(name) ?? []), environmentFiles };
}

/** Returns the unit, then its drop-ins in their order; of drop-ins with one name the first folder's counts. */
function unitFiles(root: string): readonly string[] {
  const unit = unitFolders
    .map(folder => `${folder}/docker.service`)
    .find(path => readText(join(root, path)) !== undefined);
  const dropIns = new Map<string, string>();
  for (const folder of unitFolders.map(folder => `${folder}/docker.service.d`))
    for (const name of listFolder(join(root, folder)))
      if (name.endsWith('.conf') && !dropIns.has(name)) dropIns.set(name, `${folder}/${name}`);
  const sorted = [...dropIns].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, path]) => path);
  return [...(unit === undefined ? [] : [unit]), ...sorted];
}

function withoutComments(text: string, signs: string): string {
  return text.replace(/\r\n/g, '\n').replace(new RegExp(`^\\s*[${signs}].*$`, 'gm'), '');
}

function readText(path: string): string | undefined {
  return factValue(readTextFile(path));
}

function listFolder(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
