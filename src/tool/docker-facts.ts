/**
 * Looks at everything that `tartan docker verify` judges. Nothing is changed and nothing fails: what cannot be had says
 * why.
 */
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { parseDockerdFlags } from '../docker/settings/dockerd-options.js';
import { findDockerd, findDockerdFlags, type DockerdProcess } from '../docker/settings/dockerd-places.js';
import { readEngine, type EngineReading } from '../docker/engine.js';
import type { DockerFacts, DockerUnit, KernelFacts, LinkFacts } from '../docker/verify/facts.js';
import { known, unknown, type Fact } from '../lib/fact.js';
import { bridgeNetwork } from '../docker/verify/judge-bridge.js';
import { isAbsent, runCommand } from '../host/firewall/command.js';
import { openKernelHost } from '../host/kernel-host.js';
import { messageOf } from '../lib/errors.js';
import { isExecutable, readTextFile } from '../lib/file.js';
import { silentLog } from '../lib/log.js';
import { readFirewallFacts } from './firewall-facts.js';
import type { DockerPlace } from './ports.js';

export async function readDockerFacts(place: DockerPlace): Promise<DockerFacts> {
  const { socketPath, envFile, underlay } = place;
  const [engine, unit, firewall] = await Promise.all([readEngine(socketPath), readUnit(), readFirewallFacts()]);
  const dockerd = findDockerd();
  const process = dockerd.known ? dockerd.value : undefined;
  return {
    engine,
    program: findProgram('dockerd'),
    commandLine: dockerd.known ? known(process?.words) : dockerd,
    placedFlags: findDockerdFlags(envFile),
    daemonJson: readDaemonJson(place.daemonJson, process),
    envFile: readTextFile(envFile),
    unit,
    docker0: await readBridge(engine),
    firewall,
    kernel: readKernel(underlay),
  };
}

/** As the dockerd that runs would read it: by its flag, and in its own mount namespace. */
function readDaemonJson(given: string | undefined, process: DockerdProcess | undefined): DockerFacts['daemonJson'] {
  const path =
    given ?? new Map(parseDockerdFlags(process?.words ?? [])).get('config-file') ?? '/etc/docker/daemon.json';
  const root = given === undefined && process ? `/proc/${process.pid}/root` : '';
  return { path, text: readTextFile(`${root}${path}`) };
}

function findProgram(name: string): string | undefined {
  const folders = [
    ...(process.env['PATH'] ?? '').split(delimiter),
    '/usr/local/sbin',
    '/usr/sbin',
    '/usr/bin',
    '/sbin',
  ];
  return folders.map(folder => join(folder, name)).find(isExecutable);
}

async function readUnit(): Promise<Fact<DockerUnit | undefined>> {
  // sd_booted(3)
  if (!existsSync('/run/systemd/system')) return known(undefined);
  const properties = ['LoadState', 'EnvironmentFiles', 'NeedDaemonReload'].map(name => `--property=${name}`);
  try {
    const signal = AbortSignal.timeout(10_000);
    return known(parseUnit(await runCommand('systemctl', ['show', 'docker.service', ...properties], '', signal)));
  } catch (error) {
    return isAbsent(error) ? known(undefined) : unknown(messageOf(error));
  }
}

/** @returns undefined when there is no such unit */
export function parseUnit(text: string): DockerUnit | undefined {
  const values = (name: string): readonly string[] =>
    [...text.matchAll(new RegExp(`^${name}=(.*)$`, 'gm'))].map(([, value = '']) => value);
  if (values('LoadState')[0] !== 'loaded') return undefined;
  return {
    environmentFiles: values('EnvironmentFiles').join(' '),
    needsReload: values('NeedDaemonReload')[0] === 'yes',
  };
}

async function readBridge(engine: EngineReading): Promise<Fact<LinkFacts | undefined>> {
  const networks = engine.kind === 'answers' ? engine.state.networks : [];
  const options = networks.find(({ name }) => name === bridgeNetwork)?.options;
  const name = options?.['com.docker.network.bridge.name'] ?? 'docker0';
  try {
    const host = openKernelHost({ log: silentLog });
    try {
      const link = (await host.interfaces()).find(one => one.name === name);
      return known(link && { name, mtu: link.mtu, addresses: link.addresses });
    } finally {
      await host.close();
    }
  } catch (error) {
    return unknown(messageOf(error));
  }
}

function readKernel(underlay: string | undefined): KernelFacts {
  // A dot in the name of a link would be a folder.
  const own = underlay === undefined || underlay.includes('/') ? 'default' : underlay;
  return {
    ipForward: readSetting('ip_forward'),
    rpFilterAll: readSetting('conf/all/rp_filter'),
    rpFilterUnderlay: readSetting(`conf/${own}/rp_filter`),
    underlay,
    defaultRoutes: readDefaultRoutes(),
  };
}

function readSetting(name: string): Fact<string> {
  const text = readTextFile(`/proc/sys/net/ipv4/${name}`);
  if (!text.known) return text;
  return text.value === undefined ? unknown(`there is no such setting`) : known(text.value.trim());
}

function readDefaultRoutes(): Fact<number> {
  const text = readTextFile('/proc/net/route');
  return text.known ? known(countDefaultRoutes(text.value ?? '')) : text;
}

/** Destination and mask zero, and not RTF_REJECT. */
export function countDefaultRoutes(text: string): number {
  const rows = text
    .split('\n')
    .slice(1)
    .map(line => line.split('\t'));
  return rows.filter(
    row => row[1] === '00000000' && row[7] === '00000000' && (parseInt(row[3] ?? '', 16) & 0x200) === 0,
  ).length;
}
