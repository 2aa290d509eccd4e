/** Formats the leases of the cluster as a document of `tartan/v1` and as a table. */
import { apiVersion } from '../agent/status.js';
import { comparePrefixes, formatIpv4, formatPrefix } from '../model/ip.js';
import type { TimedLease } from '../store/operator.js';
import type { LeaseListing } from './ports.js';
import { formatDuration, formatTable, type Column, type Output, type Paint } from './table.js';

export interface LeaseList {
  readonly apiVersion: typeof apiVersion;
  readonly kind: 'LeaseList';
  readonly items: readonly LeaseItem[];
  /** Subnets without a lease: reserved for a node to come, or kept for a node that vanished. */
  readonly kept: readonly { readonly subnet: string; readonly nodeId: string; readonly reserved: boolean }[];
  /** Entries below `subnets/` that are no leases. */
  readonly rejected: readonly { readonly key: string; readonly revision: number | string; readonly reason: string }[];
}

export interface LeaseItem {
  readonly subnet: string;
  readonly publicIp: string;
  /** null in an entry that flannel wrote. */
  readonly nodeId: string | null;
  readonly bootId: string | null;
  readonly backend: string;
  /** The revision of the last write; text where a number would lose digits. */
  readonly revision: number | string;
  /** null for a reservation, which never expires. */
  readonly ttlSeconds: number | null;
  /** The lease is this host's. */
  readonly self: boolean;
}

/** @param nodeId of this host, where it is known */
export function leaseListOf(listing: LeaseListing, nodeId: string | undefined): LeaseList {
  const sorted = [...listing.leases].sort((a, b) => comparePrefixes(a.subnet, b.subnet));
  return {
    apiVersion,
    kind: 'LeaseList',
    items: sorted.map(lease => itemOf(lease, nodeId)),
    kept: [...listing.kept]
      .sort((a, b) => comparePrefixes(a.subnet, b.subnet))
      .map(({ subnet, nodeId: owner, reserved }) => ({ subnet: formatPrefix(subnet), nodeId: owner, reserved })),
    rejected: listing.rejected.map(entry => ({ ...entry, revision: plainRevision(entry.revision) })),
  };
}

const columns: readonly Column<LeaseItem>[] = [
  { title: 'SUBNET', cell: item => (item.self ? { text: item.subnet, colour: 'strong' } : item.subnet) },
  { title: 'PUBLIC IP', cell: item => item.publicIp },
  { title: 'BACKEND', cell: item => item.backend },
  { title: 'TTL', cell: item => (item.ttlSeconds === null ? 'reserved' : formatDuration(item.ttlSeconds)) },
  { title: 'REVISION', cell: item => String(item.revision), wide: true },
  { title: 'BOOT', cell: item => item.bootId ?? '-', wide: true },
  { title: 'NODE', cell: item => item.nodeId ?? '-' },
  { title: 'SELF', cell: item => (item.self ? '*' : '') },
];

export function formatLeaseList(list: LeaseList, output: Exclude<Output, 'json'>, paint: Paint): string {
  return formatTable(columns, list.items, output, paint);
}

function itemOf(lease: TimedLease, nodeId: string | undefined): LeaseItem {
  return {
    subnet: formatPrefix(lease.subnet),
    publicIp: formatIpv4(lease.publicIp),
    nodeId: lease.nodeId ?? null,
    bootId: lease.bootId ?? null,
    backend: lease.backend.type,
    revision: plainRevision(lease.revision),
    ttlSeconds: lease.ttlSeconds,
    self: nodeId !== undefined && lease.nodeId === nodeId,
  };
}

function plainRevision(revision: bigint): number | string {
  return revision <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(revision) : revision.toString();
}
