/**
 * The devices of the kernel engine: the VXLAN-GPE link tartan-k with the filter `inbound`, and the filter `outbound` at
 * the tun, which stays while no process has it open. Both links are ours by an alias; what has no alias of ours is never
 * touched.
 *
 * A kernel link without its filter would route anybody's packets into containers. So it is made down, with forwarding and
 * IPv6 off, gets its filter first, and goes down at once when the filter is missing.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { TartanError, errnoOf, messageOf } from '../../lib/errors.js';
import { native, type NativeKernelLink, type NativeKernelPath } from '../../lib/native.js';
import { kernelDevice } from '../../model/plan.js';

/** Marks a link of the data plane; the host adapter looks for other aliases (host/links.ts), and leaves it alone. */
export const dataPlaneAlias = 'data plane of tartan';
/** No packet is too long for the link itself: what a path carries is asked for each peer. */
const linkMtu = 65_000;

/** No link has this index, so that `outbound` leaves all packets to user space. */
const noLink = 2 ** 31 - 1;

/** What the programs must know of the links. */
export interface LinkIndexes {
  readonly tunIndex: number;
  /** Of the kernel link while it is up: a link that is down swallows packets. */
  readonly linkIndex: number;
}

export interface KernelDevicesOptions {
  /** The name of the tun. */
  readonly device: string;
  readonly port: number;
  readonly programs: Pick<NativeKernelPath, 'outbound' | 'inbound'>;
  /** Whether the tun stays when nobody has it open. Returns false while it is being made again. */
  readonly setPersistent: (on: boolean) => boolean;
  /** Called before a filter is attached to a link of another index than before, and around the time the link is down. */
  readonly onIndexes: (indexes: LinkIndexes) => void;
}

export class KernelDevices {
  readonly #options: KernelDevicesOptions;
  readonly #calls = native();
  #indexes: LinkIndexes = { tunIndex: 0, linkIndex: 0 };
  /** Ids of our programs; 0: not attached by us yet. */
  #inboundId = 0;
  #outboundId = 0;

  constructor(options: KernelDevicesOptions) {
    this.#options = options;
  }

  /**
   * Makes what is missing, in an order that lets nothing in.
   * @returns what was made, one line each; empty when all was there
   * @throws TartanError DATAPATH_FAILED that names what stands in the way
   */
  ensure(): readonly string[] {
    const made: string[] = [];
    const tun = this.#calls.kernelLink(this.#options.device);
    const link = this.ensureLink(made);
    this.#tell({ tunIndex: tun?.index ?? 0, linkIndex: link.up ? link.index : noLink });
    this.#ensureInbound(link, made);
    this.#tell({ ...this.#indexes, linkIndex: link.index });
    if (tun) this.#ensureOutbound(tun, made);
    return made;
  }

  /** Sends packets around the kernel link until `ensure`, if that link is it. */
  linkDown(index: number): void {
    if (index === this.#indexes.linkIndex) this.#tell({ ...this.#indexes, linkIndex: noLink });
  }

  #tell(indexes: LinkIndexes): void {
    if (indexes.tunIndex === this.#indexes.tunIndex && indexes.linkIndex === this.#indexes.linkIndex) return;
    this.#indexes = indexes;
    this.#options.onIndexes(indexes);
  }

  /**
   * Makes the kernel link, down, where there is none.
   * @throws TartanError DATAPATH_FAILED that names what stands in the way
   */
  ensureLink(made: string[] = []): NativeKernelLink {
    const { port } = this.#options;
    const found = this.#calls.kernelLink(kernelDevice);
    if (found && found.alias !== dataPlaneAlias) throw foreignLink(found);
    const isRight = found?.kind === 'vxlan' && found.gpe && found.external && found.port === port;
    if (found && isRight) return withSettings(found);
    if (found) this.#calls.deleteLink(found.index);
    try {
      this.#calls.createKernelLink({ name: kernelDevice, port, alias: dataPlaneAlias, mtu: linkMtu });
    } catch (error) {
      throw this.#portError(error);
    }
    const link = this.#calls.kernelLink(kernelDevice);
    if (!link) throw new TartanError('DATAPATH_FAILED', `the link ${kernelDevice} was deleted while it was made`);
    this.#inboundId = 0;
    made.push(`the link ${kernelDevice}`);
    return withSettings(link);
  }

  #ensureInbound(link: NativeKernelLink, made: string[]): void {
    const { inbound } = this.#options.programs;
    const found = this.#calls.hasFilter(link.index, 'ingress');
    let { up } = link;
    if (found === undefined || found !== this.#inboundId) {
      if (found === undefined && up) {
        this.linkDown(link.index);
        this.#calls.setLinkUp(link.index, false);
        up = false;
      }
      this.#calls.attachFilter(link.index, 'ingress', inbound);
      this.#inboundId = this.#calls.hasFilter(link.index, 'ingress') ?? 0;
      made.push(`the filter of ${kernelDevice}`);
    }
    if (up) return;
    try {
      this.#calls.setLinkUp(link.index, true);
    } catch (error) {
      throw this.#portError(error);
    }
  }

  #ensureOutbound(tun: NativeKernelLink, made: string[]): void {
    if (tun.alias !== dataPlaneAlias) {
      if (!this.#options.setPersistent(true)) return;
      this.#calls.setLinkAlias(tun.index, dataPlaneAlias);
      writeSetting(`net/ipv4/conf/${this.#options.device}/ignore_routes_with_linkdown`, '0');
    }
    const found = this.#calls.hasFilter(tun.index, 'egress');
    if (found !== undefined && found === this.#outboundId) return;
    this.#calls.attachFilter(tun.index, 'egress', this.#options.programs.outbound);
    this.#outboundId = this.#calls.hasFilter(tun.index, 'egress') ?? 0;
    made.push(`the filter of ${this.#options.device}`);
  }

  #portError(cause: unknown): unknown {
    const { port } = this.#options;
    const errno = errnoOf(cause);
    if (errno === 'EOPNOTSUPP')
      return new TartanError('DATAPATH_FAILED', `the kernel has no vxlan links (${messageOf(cause)}): modprobe vxlan`);
    if (errno !== 'EEXIST' && errno !== 'EADDRINUSE') return cause;
    const link = this.#calls.vxlanOnPort(port, kernelDevice);
    const owner =
      link === undefined
        ? `a program has it: find it with: ss -lunp sport = :${port}`
        : `the vxlan link ${link} has it, which is not ours: see ip -d link show ${link}`;
    return new TartanError('DATAPATH_FAILED', `UDP port ${port} of the kernel engine is taken: ${owner}`, { cause });
  }
}

/** Whether the kernel link of an earlier daemon receives. */
export function hasKernelLink(): boolean {
  const link = native().kernelLink(kernelDevice);
  return link?.alias === dataPlaneAlias && link.up;
}

/** Makes room for a filter while the tun is down, whatever engine is asked for now: made later, it would cost packets. */
export function prepareTun(device: string): void {
  const tun = native().kernelLink(device);
  if (tun && !tun.up) native().makeFilterQueue(tun.index);
}

type SetPersistent = KernelDevicesOptions['setPersistent'];

/** Removes the kernel link, and all that is ours at the tun. @param setPersistent as of `releaseTun` */
export function removeKernelDevices(device: string, setPersistent?: SetPersistent): void {
  const calls = native();
  const link = calls.kernelLink(kernelDevice);
  if (link?.alias === dataPlaneAlias) calls.deleteLink(link.index);
  releaseTun(device, setPersistent);
}

/**
 * Lets all packets go by user space, whatever runs: takes our filter from the tun, and lets the kernel remove the tun with
 * its last descriptor. A tun of ours that nobody has open is removed.
 * @param setPersistent of the process that has the tun open, when it is this one
 */
export function releaseTun(device: string, setPersistent: SetPersistent = on => setPersistentOf(device, on)): void {
  const calls = native();
  const tun = calls.kernelLink(device);
  if (tun?.alias !== dataPlaneAlias) return;
  if (isOrphanTun(tun)) return calls.deleteLink(tun.index);
  calls.detachFilters(tun.index);
  setPersistent(false);
  calls.setLinkAlias(tun.index, '');
}

function setPersistentOf(device: string, on: boolean): boolean {
  // One queue more gets no packets: the steering program deals them out among the others.
  const { fd } = native().openTun(device, false);
  try {
    native().tunSetPersist(fd, on);
  } finally {
    native().closeFd(fd);
  }
  return true;
}

/** Whether the link is a tun of ours that no process has open. */
export function isOrphanTun({ kind, alias, carrier }: NativeKernelLink): boolean {
  return kind === 'tun' && alias === dataPlaneAlias && !carrier;
}

function foreignLink({ kind, alias }: NativeKernelLink): TartanError {
  const what = [
    kind === '' ? 'a link' : `a link of kind ${kind}`,
    alias === '' ? 'without an alias' : `with '${alias}'`,
  ];
  return new TartanError(
    'DATAPATH_FAILED',
    `${kernelDevice} is ${what.join(' ')}, and not ours (alias '${dataPlaneAlias}'): it is left alone; rename or remove ` +
      `it for the kernel engine: ip link del ${kernelDevice}`,
  );
}

/** Docker and others switch forwarding on for all links of the host. */
function withSettings(link: NativeKernelLink): NativeKernelLink {
  writeSetting(`net/ipv4/conf/${kernelDevice}/forwarding`, '0');
  // No route leads there, so the strict rule drops whatever the stack gets.
  writeSetting(`net/ipv4/conf/${kernelDevice}/rp_filter`, '1');
  writeSetting(`net/ipv6/conf/${kernelDevice}/disable_ipv6`, '1');
  return link;
}

/** @throws TartanError DATAPATH_FAILED */
function writeSetting(name: string, value: string): void {
  const path = `/proc/sys/${name}`;
  try {
    if (readFileSync(path, 'latin1').trim() !== value) writeFileSync(path, `${value}\n`);
  } catch (cause) {
    // Without IPv6 the kernel has nothing to disable.
    if (errnoOf(cause) === 'ENOENT' && name.startsWith('net/ipv6/')) return;
    throw new TartanError('DATAPATH_FAILED', `${path} cannot be set to ${value}: ${messageOf(cause)}`, { cause });
  }
}
