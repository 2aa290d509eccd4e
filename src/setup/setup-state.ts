/** Reads what a host has of tartan's set-up: its files, the units as systemd knows them, what this package ships. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { joinFile, readDaemonEnvironment } from '../cli/environment-file.js';
import { TartanError } from '../lib/errors.js';
import { readBounded } from '../lib/file.js';
import { runProgram } from './step.js';

export const paths = {
  joinFile,
  password: '/etc/tartan/etcd-password',
  ca: '/etc/tartan/etcd-ca.pem',
  dropIn: '/etc/systemd/system/docker.service.d/tartan.conf',
  unit: '/etc/systemd/system/tartand.service',
} as const;

export type PathName = keyof typeof paths;

export interface UnitState {
  /** systemd's words: loaded, masked, not-found. */
  readonly load: string;
  readonly active: string;
  /** enabled, disabled, or empty. */
  readonly file: string;
  /** How often systemd has started it again by itself. */
  readonly restarts: number;
}

export interface SetupState {
  /** The texts of the files that are there. */
  readonly files: ReadonlyMap<PathName, string>;
  readonly tartand: UnitState;
  readonly docker: UnitState;
  /** What the administrator's file has. */
  readonly settings: ReadonlyMap<string, string>;
  readonly settingsPath: string;
  readonly shipped: { readonly dropIn: string; readonly unit: string };
}

const maxFileBytes = 64 * 1024;

/** Red Hat's packages of Docker want another one. */
function dropInName(): string {
  return `systemd/${existsSync('/etc/sysconfig/docker') ? 'redhat/' : ''}docker.service.d/tartan.conf`;
}

/** @returns where the drop-in for Docker's unit lies that this program ships */
export function findDropIn(): string | undefined {
  return findShipped(dropInName());
}

/** @throws TartanError HOST_REFUSED where no systemd runs, or a file of this program is missing */
export async function readSetupState(): Promise<SetupState> {
  if (!existsSync('/run/systemd/system'))
    throw new TartanError('HOST_REFUSED', 'systemd does not run this host: start tartand by hand, see tartand --help');
  const files = new Map<PathName, string>();
  for (const [name, path] of Object.entries(paths) as [PathName, string][]) {
    const text = readBounded(path, maxFileBytes);
    if (text !== undefined) files.set(name, text);
  }
  // What join wrote is not the administrator's.
  const own = readDaemonEnvironment(undefined, '/dev/null/absent');
  return {
    files,
    tartand: await readUnit('tartand.service'),
    docker: await readUnit('docker.service'),
    settings: own?.variables ?? new Map<string, string>(),
    settingsPath: own?.path ?? '',
    shipped: {
      dropIn: readShipped(dropInName()),
      unit: readShipped('systemd/tartand.service'),
    },
  };
}

const unitProperties = ['LoadState', 'ActiveState', 'UnitFileState', 'NRestarts'] as const;

export async function readUnit(name: string): Promise<UnitState> {
  const text = await runProgram(['systemctl', 'show', name, ...unitProperties.flatMap(one => ['-p', one])]);
  const value = (property: (typeof unitProperties)[number]): string =>
    new RegExp(`^${property}=(.*)$`, 'm').exec(text)?.[1] ?? '';
  const restarts = Number(value('NRestarts'));
  return { load: value('LoadState'), active: value('ActiveState'), file: value('UnitFileState'), restarts };
}

/** @returns where a file that this program ships lies: in a checkout and npm's package below config, else in share */
export function findShipped(name: string): string | undefined {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json')) && folder !== '/') folder = dirname(folder);
  const unit = name.startsWith('systemd/') ? [join(folder, '../systemd/system', name.slice(8))] : [];
  const places = [join(folder, 'config', name), join(folder, '../../share/tartan', name), ...unit];
  return places.find(path => existsSync(path));
}

export function readShipped(name: string): string {
  const path = findShipped(name);
  const text = path === undefined ? undefined : readBounded(path, maxFileBytes);
  if (text === undefined)
    throw new TartanError('HOST_REFUSED', `the file ${name} of this program is missing: install tartan again`);
  return text;
}
