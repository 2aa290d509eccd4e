/** Gathers the facts that `tartan doctor` judges, side by side and in two seconds. It changes nothing. */
import { factValue, known, unknown, type Fact } from '../lib/fact.js';
import type { DoctorFacts, UnderlayFindings } from '../doctor/facts.js';
import { tunnelDevice } from '../backend/all.js';
import { runCommand } from '../host/firewall/command.js';
import { readOuterDrops } from '../host/firewall/outer-drops.js';
import type { KernelAddress, KernelLink } from '../host/netlink/messages.js';
import { Rtnetlink } from '../host/netlink/rtnetlink.js';
import { NetlinkSocket } from '../host/netlink/socket.js';
import { messageOf } from '../lib/errors.js';
import { native } from '../lib/native.js';
import {
  bridgeAddress,
  formatIpv4,
  isUnicastHost,
  parseIpv4,
  parsePrefix,
  prefixContains,
  type Ipv4,
} from '../model/ip.js';
import { kernelPort } from '../model/plan.js';
import type { Status, StatusPeer } from '../agent/status.js';
import { readHostFacts } from './doctor-host-facts.js';
import { readOwnFacts } from './doctor-own-facts.js';
import type { DoctorRequest } from './ports.js';

export const factLimitMs = 2_000;
/** How many peers are looked at: the silent ones first. */
const peersAsked = 16;

export async function readDoctorFacts(request: DoctorRequest): Promise<Pick<DoctorFacts, 'own' | 'host' | 'underlay'>> {
  const { status } = request;
  const peers = choosePeers(status);
  const [own, underlay, drops, kernelDrops] = await Promise.all([
    readOwnFacts(request),
    inTime('the links and routes', readUnderlay(status, peers)),
    readDrops(status, peers),
    readKernelDrops(status, peers),
  ]);
  const { tunnelIndex, ...found } = factValue(underlay) ?? unread(underlay);
  const host = readHostFacts(status?.interface?.name, tunnelIndex);
  return { own, host, underlay: { ...found, drops, kernelDrops } };
}

/** @returns the fact, or that it took too long */
export async function inTime<T>(what: string, reading: Promise<T>): Promise<Fact<T>> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Fact<T>>(resolve => {
    timer = setTimeout(() => resolve(unknown(`${what} did not come within ${factLimitMs / 1000} s`)), factLimitMs);
  });
  const read = reading.then(known, (error: unknown) => unknown(messageOf(error)));
  const fact = await Promise.race([read, late]);
  clearTimeout(timer);
  return fact;
}

function choosePeers(status: Status | undefined): readonly StatusPeer[] {
  const peers = status?.peers ?? [];
  const silent = peers.filter(({ watched }) => watched?.state === 'silent');
  const rest = peers.filter(({ watched }) => watched?.state !== 'silent');
  return [...silent, ...rest].slice(0, peersAsked);
}

type UnderlayReading = Omit<UnderlayFindings, 'drops' | 'kernelDrops'> & { readonly tunnelIndex: number | undefined };

function unread(why: Fact<unknown>): UnderlayReading {
  const fact = why.known ? unknown('not read') : why;
  return { link: fact, tunnel: fact, candidates: [], routes: fact, tunnelIndex: undefined };
}

async function readDrops(status: Status | undefined, peers: readonly StatusPeer[]): Promise<UnderlayFindings['drops']> {
  const port = status?.backend?.port;
  if (!status?.interface || typeof port !== 'number' || !status.datapath) return known([]);
  const { name: device, address } = status.interface;
  const { network, lease, docker } = status;
  const overlay =
    network !== null && lease && docker?.forward
      ? { link: tunnelDevice, network: parsePrefix(network), subnet: parsePrefix(lease.subnet) }
      : undefined;
  const addresses = peers.map(peer => parseIpv4(peer.publicIp));
  const tunnel = { device, address: parseIpv4(address), port, peers: addresses, overlay };
  const signal = AbortSignal.timeout(factLimitMs);
  const drops = await inTime('the packet filter rules', readOuterDrops(tunnel, runCommand, signal));
  return drops.known ? drops.value : drops;
}

async function readKernelDrops(
  status: Status | undefined,
  peers: readonly StatusPeer[],
): Promise<UnderlayFindings['kernelDrops']> {
  if (!status?.interface || status.datapath?.kernel?.state !== 'on') return known([]);
  const { name: device, address } = status.interface;
  const addresses = peers.map(peer => parseIpv4(peer.publicIp));
  const tunnel = { device, address: parseIpv4(address), port: kernelPort, peers: addresses, isKernel: true };
  const signal = AbortSignal.timeout(factLimitMs);
  const drops = await inTime('the packet filter rules', readOuterDrops(tunnel, runCommand, signal));
  return drops.known ? drops.value : drops;
}

async function readUnderlay(status: Status | undefined, peers: readonly StatusPeer[]): Promise<UnderlayReading> {
  const rtnetlink = new Rtnetlink(() => new NetlinkSocket(native()));
  try {
    const links = await rtnetlink.links();
    const addresses = await rtnetlink.addresses();
    const nameOf = (index: number | undefined): string | undefined => links.find(link => link.index === index)?.name;
    const tunnel = links.find(({ name }) => name === tunnelDevice);
    const routes = [];
    for (const { publicIp, subnet } of peers) {
      const route = async (to: Ipv4) => {
        const found = await rtnetlink.routeTo(to);
        const interfaceName = found?.type === 'unicast' ? nameOf(found.linkIndex) : undefined;
        return interfaceName === undefined || !found?.source ? undefined : { interfaceName, source: found.source };
      };
      const outer = await route(parseIpv4(publicIp));
      const inner = await route(bridgeAddress(parsePrefix(subnet)));
      routes.push({ publicIp: parseIpv4(publicIp), subnet, outer, inner });
    }
    return {
      link: known(linkOf(status, links, addresses)),
      tunnel: known(tunnel && { mtu: tunnel.mtu, up: tunnel.up }),
      candidates: candidatesOf(status, links, addresses),
      routes: known(routes),
      tunnelIndex: tunnel?.index,
    };
  } finally {
    rtnetlink.close();
  }
}

function linkOf(
  status: Status | undefined,
  links: readonly KernelLink[],
  addresses: readonly KernelAddress[],
): UnderlayFindings['link'] extends Fact<infer L> ? L : never {
  const link = links.find(({ name }) => name === status?.interface?.name);
  if (!link) return undefined;
  const own = addresses.find(
    one => one.linkIndex === link.index && formatIpv4(one.address) === status?.interface?.address,
  );
  const { name, mtu, up } = link;
  return { name, mtu, up, hasAddress: own !== undefined, isRouted: name === 'lo' || own?.length === 32 };
}

const namedMax = 3;
/** Links that programs make for containers and virtual machines. */
const madeLinks = /^(lo|docker|br-|veth|virbr|lxc|lxd|cni|flannel|cali|tartan)/;

function candidatesOf(
  status: Status | undefined,
  links: readonly KernelLink[],
  addresses: readonly KernelAddress[],
): readonly string[] {
  const network = status?.network ? parsePrefix(status.network) : undefined;
  return links
    .filter(({ name, up }) => up && name !== status?.interface?.name && !madeLinks.test(name))
    .flatMap(({ name, index }) =>
      addresses
        .filter(({ linkIndex, address }) => linkIndex === index && isUnicastHost(address))
        .filter(({ address }) => !network || !prefixContains(network, address))
        .map(({ address }) => `${name} ${formatIpv4(address)}`),
    )
    .slice(0, namedMax);
}
