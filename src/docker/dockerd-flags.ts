/**
 * Where dockerd gets flags from on this host: the settings files of the distributions, its systemd unit with drop-ins
 * and the files these name, and the command line of the dockerd that runs. A key that stands there and in daemon.json
 * too keeps dockerd from starting, with equal values as well.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';

export interface DockerdFlag {
  readonly key: string;
  /** '' for a flag without one. */
  readonly value: string;
  /** A file, or the running dockerd. */
  readonly place: string;
  /** Of the dockerd that runs: the flag is gone once it starts without it. */
  readonly running: boolean;
}

const settingsFiles = ['/etc/default/docker', '/etc/sysconfig/docker', '/etc/sysconfig/docker-network'];
/** The first has the say, systemd.unit(5). */
const unitFolders = [
  '/etc/systemd/system',
  '/run/systemd/system',
  '/usr/local/lib/systemd/system',
  '/usr/lib/systemd/system',
  '/lib/systemd/system',
];
const pidFiles = ['/run/docker.pid', '/var/run/docker.pid'];
const maxBytes = 1024 * 1024;

/**
 * @param except file that is ours: what it says is not counted
 * @param root where the host's files are
 */
export function findDockerdFlags(keys: readonly string[], except: string, root = '/'): readonly DockerdFlag[] {
  const read = (path: string): string => readText(join(root, path)) ?? '';
  const unit = readUnit(root);
  const files = [...settingsFiles, ...unit.environmentFiles].filter(path => path !== except);
  const texts = [
    ...[...new Set(files)].map(place => ({ place, text: withoutComments(read(place), '#') })),
    ...unit.lines.map(({ place, text }) => ({ place, text })),
  ];
  const standing = texts.flatMap(({ place, text }) =>
    flagsOf(text, keys).map(flag => ({ ...flag, place, running: false })),
  );
  return [...standing, ...runningFlags(keys, root)];
}

function flagsOf(text: string, keys: readonly string[]): readonly { key: string; value: string }[] {
  const flag = /(?<![\w-])--([a-z0-9-]+)(?:=([^\s"';]*))?(?![\w-])/g;
  return [...text.matchAll(flag)]
    .map(([, key = '', value = '']) => ({ key, value }))
    .filter(({ key }) => keys.includes(key));
}

interface UnitLines {
  readonly lines: readonly { readonly place: string; readonly text: string }[];
  readonly environmentFiles: readonly string[];
}

/** What holds of docker.service once drop-ins have replaced and reset what stood before them. */
function readUnit(root: string): UnitLines {
  const held = new Map<string, { place: string; text: string }[]>();
  for (const place of unitFiles(root)) {
    const text = withoutComments(readText(join(root, place)) ?? '', '#;').replace(/\\\n/g, ' ');
    for (const line of text.split('\n')) {
      const [, name = '', value = ''] = /^\s*(ExecStart|Environment|EnvironmentFile)\s*=\s*(.*)$/.exec(line) ?? [];
      if (name === '') continue;
      held.set(name, value === '' ? [] : [...(held.get(name) ?? []), { place, text: value }]);
    }
  }
  const environmentFiles = (held.get('EnvironmentFile') ?? []).map(({ text }) => text.trim().replace(/^-/, ''));
  return { lines: ['ExecStart', 'Environment'].flatMap(name => held.get(name) ?? []), environmentFiles };
}

/** The unit, then its drop-ins in their order; of one name the first folder's. */
function unitFiles(root: string): readonly string[] {
  const unit = unitFolders.map(folder => `${folder}/docker.service`).find(path => isFile(join(root, path)));
  const dropIns = new Map<string, string>();
  for (const folder of unitFolders.map(folder => `${folder}/docker.service.d`))
    for (const name of listed(join(root, folder)))
      if (name.endsWith('.conf') && !dropIns.has(name)) dropIns.set(name, `${folder}/${name}`);
  const sorted = [...dropIns].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, path]) => path);
  return [...(unit === undefined ? [] : [unit]), ...sorted];
}

function runningFlags(keys: readonly string[], root: string): readonly DockerdFlag[] {
  const pid = pidFiles.map(path => (readText(join(root, path)) ?? '').trim()).find(text => /^[1-9]\d{0,9}$/.test(text));
  const words = pid === undefined ? [] : (readText(join(root, 'proc', pid, 'cmdline')) ?? '').split('\0');
  // The number may be another's by now.
  if (basename(words[0] ?? '') !== 'dockerd') return [];
  return words.flatMap((word, at) => {
    const [, key = '', value] = /^--([a-z0-9-]+)(?:=(.*))?$/s.exec(word) ?? [];
    if (!keys.includes(key)) return [];
    const next = /^[^-]/.test(words[at + 1] ?? '') ? (words[at + 1] ?? '') : '';
    return [{ key, value: value ?? next, place: `the running dockerd (pid ${pid})`, running: true }];
  });
}

function withoutComments(text: string, signs: string): string {
  return text.replace(/\r\n/g, '\n').replace(new RegExp(`^\\s*[${signs}].*$`, 'gm'), '');
}

/** undefined for anything that is no readable file; links are followed, as Docker does. */
function readText(path: string): string | undefined {
  try {
    // A file of /proc has no size.
    return statSync(path).isFile() && statSync(path).size <= maxBytes ? readFileSync(path, 'utf8') : undefined;
  } catch {
    return undefined;
  }
}

function isFile(path: string): boolean {
  return readText(path) !== undefined;
}

function listed(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
