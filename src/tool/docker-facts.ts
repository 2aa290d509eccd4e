/** Reads the facts that `tartan docker verify` judges. Nothing is changed; a fact that cannot be read says why. */
import { existsSync } from 'node:fs';
import { parseDockerdFlags } from '../docker/settings/dockerd-options.js';
import { findDockerd, findDockerdFlags, type DockerdProcess } from '../docker/settings/dockerd-places.js';
import { readEngine, type EngineReading } from '../docker/engine.js';
import type { DockerFacts, DockerUnit, KernelFacts } from '../docker/verify/facts.js';
import { findProgram } from '../lib/child-environment.js';
import { known, unknown, type Fact } from '../lib/fact.js';
import { bridgeNetwork } from '../docker/verify/judge-networks.js';
import { programFact, runCommand } from '../host/firewall/command.js';
import { mainTable, type KernelRoute } from '../host/netlink/messages.js';
import { isDefaultRoute } from '../host/netlink/route-filter.js';
import { Rtnetlink } from '../host/netlink/rtnetlink.js';
import { NetlinkSocket } from '../host/netlink/socket.js';
import { messageOf } from '../lib/errors.js';
import { readTextFile } from '../lib/file.js';
import { native } from '../lib/native.js';
import { formatIpv4, prefixAround, prefixesOverlap } from '../model/ip.js';
import { findDropIn } from '../setup/setup-state.js';
import { readFirewallFacts } from './firewall-facts.js';
import type { FactsRequest } from './ports.js';

export async function readDockerFacts(request: FactsRequest): Promise<DockerFacts> {
  const { socketPath, envFile, underlay } = request;
  const [engine, unit, firewall] = await Promise.all([
    readEngine(socketPath, request.limitMs),
    readUnit(request.limitMs ?? 10_000),
    readFirewallFacts(request.limitMs ?? 20_000),
  ]);
  const { docker0, defaultRoutes } = await readNetlinkFacts(engine);
  const dockerd = findDockerd();
  const process = dockerd.known ? dockerd.value : undefined;
  return {
    engine,
    program: findProgram('dockerd'),
    commandLine: dockerd.known ? known(process?.words) : dockerd,
    placedFlags: findDockerdFlags(envFile),
    daemonJson: readDaemonJson(request.daemonJson, process),
    envFile: readTextFile(envFile),
    unit,
    dropIn: findDropIn(),
    docker0,
    firewall,
    kernel: { ...readSettings(underlay), underlay, defaultRoutes },
  };
}

/** Reads daemon.json as the running dockerd does: by its flag, and in its own mount namespace. */
function readDaemonJson(given: string | undefined, process: DockerdProcess | undefined): DockerFacts['daemonJson'] {
  const path =
    given ?? new Map(parseDockerdFlags(process?.words ?? [])).get('config-file') ?? '/etc/docker/daemon.json';
  const root = given === undefined && process ? `/proc/${process.pid}/root` : '';
  return { path, text: readTextFile(`${root}${path}`) };
}

async function readUnit(limitMs: number): Promise<Fact<DockerUnit | undefined>> {
  // sd_booted(3)
  if (!existsSync('/run/systemd/system')) return known(undefined);
  const properties = ['LoadState', 'EnvironmentFiles', 'NeedDaemonReload'].map(name => `--property=${name}`);
  const signal = AbortSignal.timeout(limitMs);
  return programFact(async () =>
    parseUnit(await runCommand('systemctl', ['show', 'docker.service', ...properties], '', signal)),
  );
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

/** Asks rtnetlink for the bridge of Docker's default network and for the default routes. */
async function readNetlinkFacts(
  engine: EngineReading,
): Promise<Pick<DockerFacts, 'docker0'> & Pick<KernelFacts, 'defaultRoutes'>> {
  const networks = engine.kind === 'answers' ? engine.state.networks : [];
  const options = networks.find(({ name }) => name === bridgeNetwork)?.options;
  const bridge = options?.['com.docker.network.bridge.name'] ?? 'docker0';
  try {
    const rtnetlink = new Rtnetlink(() => new NetlinkSocket(native()));
    try {
      const links = await rtnetlink.links();
      const addresses = await rtnetlink.addresses();
      const routes = await rtnetlink.routes(isDefaultRoute);
      const link = links.find(({ name }) => name === bridge);
      const own = addresses.filter(({ linkIndex }) => linkIndex === link?.index);
      const subnets = own.map(({ peer, length }) => prefixAround(peer, length));
      // An address of /32, as the tunnel's, leads to nobody else.
      const rivals = addresses.flatMap(({ linkIndex, address, peer, length }) => {
        const name = links.find(({ index }) => index === linkIndex)?.name ?? '';
        const subnet = prefixAround(peer, length);
        const overlaps = length < 32 && subnets.some(one => prefixesOverlap(one, subnet));
        return linkIndex !== link?.index && overlaps ? [`${name} (${formatIpv4(address)}/${length})`] : [];
      });
      return {
        docker0: known(
          link && {
            name: bridge,
            mtu: link.mtu,
            addresses: own.map(({ address, peer, length }) => ({ address, prefix: prefixAround(peer, length) })),
            rivals,
          },
        ),
        defaultRoutes: known(countDefaultRoutes(routes)),
      };
    } finally {
      rtnetlink.close();
    }
  } catch (error) {
    const failure = unknown(messageOf(error));
    return { docker0: failure, defaultRoutes: failure };
  }
}

/** RTN_UNREACHABLE and RTN_PROHIBIT of linux/rtnetlink.h. */
const rejecting: readonly number[] = [7, 8];

/** Counts the default routes of the main table, without those that reject. */
export function countDefaultRoutes(routes: readonly KernelRoute[]): number {
  return routes.filter(
    ({ table, destination, typeNumber }) =>
      table === mainTable && destination.length === 0 && !rejecting.includes(typeNumber),
  ).length;
}

function readSettings(underlay: string | undefined): Omit<KernelFacts, 'underlay' | 'defaultRoutes'> {
  // A dot in the name of a link would be a folder.
  const own = underlay === undefined || underlay.includes('/') ? 'default' : underlay;
  return {
    ipForward: readSetting('ip_forward'),
    rpFilterAll: readSetting('conf/all/rp_filter'),
    rpFilterUnderlay: readSetting(`conf/${own}/rp_filter`),
  };
}

function readSetting(name: string): Fact<string> {
  const text = readTextFile(`/proc/sys/net/ipv4/${name}`);
  if (!text.known) return text;
  return text.value === undefined ? unknown(`there is no such setting`) : known(text.value.trim());
}
