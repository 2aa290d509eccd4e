/**
 * Creates and ends reservations for an operator. A reservation is a lease key without an etcd lease, as in flannel. A
 * node that has no lease yet has no address to publish, and peers would route to an invented one. Its reservation is a
 * tombstone alone, which flannel does not read, until the node takes it. A living node is never interrupted: one
 * guarded write makes its lease a reservation, or its reservation a lease, and the node finds the write by its watch.
 */
import { TartanError } from '../lib/errors.js';
import { chooseSubnet, type Tombstone } from '../model/allocation.js';
import { noFeatures } from '../model/features.js';
import {
  formatIpv4,
  formatPrefix,
  prefixCovers,
  prefixesOverlap,
  samePrefix,
  type Ipv4,
  type Prefix,
} from '../model/ip.js';
import { formatLeaseValue, type BackendInfo, type Lease } from '../model/lease.js';
import { isLeasable, type NetworkConfig } from '../model/network.js';
import { dropLeases, freeSubnetCompares, idsOf, leasePut, rewriteKey, tombstoneOf, unmodifiedKey } from './claim.js';
import { mostRaces, retryLostRaces, type Grant } from './claim.js';
import { formatReservedFor, getEntry, getTombstone, SnapshotReader, type ClusterSnapshot } from './entries.js';
import type { Write } from './kv.js';
import { noFreeSubnet, tombstoneSeconds } from './quarantine.js';
import { deleteTombstone, removeLease, type ReleaseContext } from './release.js';

/** The node or the host that a subnet is reserved for. */
export type Holder =
  { readonly kind: 'node'; readonly nodeId: string } | { readonly kind: 'address'; readonly publicIp: Ipv4 };

export interface ReserveRequest {
  readonly network: NetworkConfig;
  /** Undefined: the subnet that the holder has, else any free one. */
  readonly subnet: Prefix | undefined;
  readonly holder: Holder;
  /** What the lease of an address says that was not seen yet. */
  readonly backend: BackendInfo;
}

export interface Refusal {
  readonly kind: 'refused';
  readonly reason: string;
  readonly next: string;
}

export type ReserveResult =
  Refusal | { readonly kind: 'reserved'; readonly subnet: Prefix; readonly before: 'free' | 'leased' | 'reserved' };

/** A node id that no node has. */
const noNodeId = ' ';

/** @throws TartanError NO_FREE_SUBNET, STORE_UNAVAILABLE, PERMISSION */
export async function reserve(
  context: ReleaseContext,
  request: ReserveRequest,
  signal: AbortSignal,
): Promise<ReserveResult> {
  const reader = new SnapshotReader(context);
  const result = await retryLostRaces(context, signal, async () => {
    const snapshot = await reader.readSnapshot(request.network, signal);
    return (
      (await convertToReservation(context, request, snapshot, signal)) ??
      (await reserveFree(context, request, snapshot, signal))
    );
  });
  if (result) return result;
  throw new TartanError('STORE_UNAVAILABLE', `the leases changed ${mostRaces} times while one was being reserved`);
}

/** Makes the lease of the holder a reservation with the same value. */
async function convertToReservation(
  context: ReleaseContext,
  { subnet, holder }: ReserveRequest,
  snapshot: ClusterSnapshot,
  signal: AbortSignal,
): Promise<ReserveResult | undefined> {
  const leases = snapshot.leases.filter(lease => isOwnedBy(lease, holder));
  const lease = leases.find(entry => subnet === undefined || samePrefix(entry.subnet, subnet));
  if (!lease) return leases[0] && refuseSecond(holder, leases[0].subnet, leases[0].leaseId === '0');
  if (lease.leaseId === '0') return { kind: 'reserved', subnet: lease.subnet, before: 'reserved' };
  const { kv, keys } = context;
  const writes: readonly Write[] = [
    leasePut(keys, lease.subnet, lease.text, '0'),
    ...(lease.nodeId === undefined ? [] : [tombstonePut(context, lease.subnet, lease.nodeId)]),
  ];
  const { outcome } = await kv.commit(unmodifiedKey(keys, lease), writes, { signal });
  if (outcome !== 'done') return undefined;
  const former = [lease.leaseId, tombstoneOf(snapshot, lease.subnet)?.leaseId ?? '0'];
  if (lease.nodeId !== undefined) await dropLeases(context, former, signal);
  return { kind: 'reserved', subnet: lease.subnet, before: 'leased' };
}

/** Reserves a free subnet: by a tombstone for a node, by a lease key for an address. */
async function reserveFree(
  context: ReleaseContext,
  request: ReserveRequest,
  snapshot: ClusterSnapshot,
  signal: AbortSignal,
): Promise<ReserveResult | undefined> {
  const { kv, keys } = context;
  const { network, holder } = request;
  const nodeId = holder.kind === 'node' ? holder.nodeId : noNodeId;
  const pending = snapshot.tombstones.find(({ reserved, nodeId: owner }) => reserved && owner === nodeId);
  if (pending && (!request.subnet || samePrefix(pending.subnet, request.subnet)))
    return { kind: 'reserved', subnet: pending.subnet, before: 'reserved' };
  if (pending) return refuseSecond(holder, pending.subnet, true);
  const { taken, tombstones } = snapshot;
  const subnet = request.subnet ?? chooseSubnet({ network, taken, tombstones, nodeId, random: Math.random });
  if (!subnet) {
    const kept = tombstones.map(tombstone => ({ ...tombstone, ageSeconds: undefined, over: false }));
    throw noFreeSubnet(network, snapshot.leases.length, kept);
  }
  const refusal = refuseSubnet(network, subnet) ?? refuseOccupied(snapshot, subnet, nodeId);
  if (refusal) return refusal;
  const write =
    holder.kind === 'node'
      ? tombstonePut(context, subnet, formatReservedFor(holder.nodeId))
      : addressPut(context, subnet, holder.publicIp, request.backend);
  const { outcome } = await kv.commit(freeSubnetCompares(keys, subnet, snapshot), [write], { signal });
  if (outcome !== 'done') return undefined;
  const tombstone = tombstoneOf(snapshot, subnet);
  if (tombstone) await dropLeases(context, [tombstone.leaseId], signal);
  return { kind: 'reserved', subnet, before: 'free' };
}

function isOwnedBy(lease: Lease, holder: Holder): boolean {
  return holder.kind === 'node' ? lease.nodeId === holder.nodeId : lease.publicIp === holder.publicIp;
}

function tombstonePut({ keys }: ReleaseContext, subnet: Prefix, value: string): Write {
  return { kind: 'put', key: keys.tombstone(subnet), value: Buffer.from(value), leaseId: '0' };
}

function addressPut({ keys }: ReleaseContext, subnet: Prefix, publicIp: Ipv4, backend: BackendInfo): Write {
  const lease = { publicIp, backend, nodeId: undefined, bootId: undefined, features: noFeatures, released: false };
  return leasePut(keys, subnet, formatLeaseValue(lease), '0');
}

function refuseSecond(holder: Holder, subnet: Prefix, reserved: boolean): Refusal {
  const who = holder.kind === 'node' ? `node ${holder.nodeId}` : `the host at ${formatIpv4(holder.publicIp)}`;
  const next = reserved ? `tartan lease release ${formatPrefix(subnet)}` : 'tartan leave, on that host';
  const reason = `${who} has ${formatPrefix(subnet)} ${reserved ? 'reserved' : 'leased'} already, and a node has one subnet`;
  return refuse(reason, `reserve that one, or give it up first: ${next}`);
}

/** @returns undefined for a subnet that the network leases */
function refuseSubnet(network: NetworkConfig, subnet: Prefix): Refusal | undefined {
  if (isLeasable(network, subnet)) return undefined;
  const reason = !prefixCovers(network.network, subnet)
    ? `is not a part of the network ${formatPrefix(network.network)}`
    : subnet.length !== network.subnetLength
      ? `has the wrong length: the subnets of ${formatPrefix(network.network)} are /${network.subnetLength}`
      : `is outside of what is leased, ${formatIpv4(network.subnetMin)} to ${formatIpv4(network.subnetMax)}`;
  const next = 'choose another subnet, or none to have one chosen; tartan config get shows the network';
  return refuse(`${formatPrefix(subnet)} ${reason}`, next);
}

function refuseOccupied(snapshot: ClusterSnapshot, subnet: Prefix, nodeId: string): Refusal | undefined {
  const lease = snapshot.leases.find(other => prefixesOverlap(other.subnet, subnet));
  const text = formatPrefix(subnet);
  const next = 'choose another subnet; tartan leases -o wide shows who has what';
  if (lease) {
    const how = samePrefix(lease.subnet, subnet) ? 'is held' : `overlaps ${formatPrefix(lease.subnet)}, which is held`;
    return refuse(`${text} ${how} by ${describeOwner(lease)}`, next);
  }
  const other = snapshot.taken.find(prefix => prefixesOverlap(prefix, subnet));
  if (other) return refuse(`${text} overlaps ${formatPrefix(other)}, which is taken`, next);
  const kept = snapshot.tombstones.find(entry => entry.nodeId !== nodeId && prefixesOverlap(entry.subnet, subnet));
  return kept && refuseKept(kept, `${text} cannot be reserved`);
}

/** Refuses a subnet that has no lease and is kept for a node. */
function refuseKept({ subnet, nodeId, reserved }: Tombstone, what: string): Refusal {
  const text = formatPrefix(subnet);
  const why = reserved ? 'is reserved for' : 'is kept for';
  const next = reserved
    ? `tartan lease release ${text}`
    : `choose another subnet, or where that node is surely gone: tartan lease release --force ${text}`;
  return refuse(`${what}: ${text} ${why} node ${nodeId}`, next);
}

function describeOwner({ nodeId, publicIp }: Lease): string {
  return nodeId === undefined ? `the host at ${formatIpv4(publicIp)}` : `node ${nodeId} at ${formatIpv4(publicIp)}`;
}

export type ReleaseResult =
  | Refusal
  /** No node has the subnet any more. */
  | { readonly kind: 'free' }
  /** The node lives and continues with an ordinary lease. */
  | { readonly kind: 'leased'; readonly nodeId: string }
  /** The node did not answer. */
  | { readonly kind: 'ending'; readonly nodeId: string; readonly seconds: number };

const graceSeconds = 60;
/** The default TTL of a daemon, which sets the length of the quarantine of a node that does not answer. */
const defaultTtlSeconds = 86_400;
/** A living node writes its key within a second after its watch reports the change. */
const answerMs = 3_000;
const pollMs = 100;

/**
 * Ends a reservation. A living node keeps its subnet as an ordinary lease: the key gets a short etcd lease, which the
 * node finds and replaces by its own. If no node does so, the key expires with the short lease. The subnet is then in
 * quarantine for the node, which may be alive and cut off. The subnet is free at once only if no node uses the
 * reservation, or with `force`.
 * @param force the operator asserts that the node is gone
 */
export async function releaseReservation(
  context: ReleaseContext,
  subnet: Prefix,
  force: boolean,
  signal: AbortSignal,
): Promise<ReleaseResult> {
  const attempt = (): Promise<ReleaseResult | undefined> => tryRelease(context, subnet, force, signal);
  const result = await retryLostRaces(context, signal, attempt);
  return result ?? refuse(`${formatPrefix(subnet)} changed meanwhile`, 'run it again');
}

/** @returns undefined when the key changed between its read and its write: a living owner writes it now and then */
async function tryRelease(
  context: ReleaseContext,
  subnet: Prefix,
  force: boolean,
  signal: AbortSignal,
): Promise<ReleaseResult | undefined> {
  const entry = await getEntry(context, subnet, signal);
  if (!entry) return releaseKept(context, subnet, force, signal);
  const text = formatPrefix(subnet);
  if (entry.kind === 'rejected') {
    const key = context.keys.subnet(subnet).toString();
    return refuse(`${text} is no lease: its value ${entry.rejected.reason}`, `look at it with: etcdctl get ${key}`);
  }
  const { lease } = entry;
  if (lease.leaseId !== '0' && !force) {
    const reason = `${text} is an ordinary lease of ${describeOwner(lease)}, not a reservation`;
    const gone = `where it is surely gone: tartan lease release --force ${text}`;
    return refuse(reason, `to free it run on that host: tartan leave; ${gone}`);
  }
  const { nodeId, bootId } = lease;
  if (nodeId !== undefined && bootId !== undefined && !lease.released && !force)
    return convertToLease(context, { ...lease, nodeId }, signal);
  if (await removeLease(context, lease, signal)) return { kind: 'free' };
  return refuse(`${text} is in use: ${describeOwner(lease)} answered`, 'to free it run on that host: tartan leave');
}

/** Deletes the tombstone of a subnet without a lease key: a reservation that was not taken, or a quarantine. */
async function releaseKept(
  context: ReleaseContext,
  subnet: Prefix,
  force: boolean,
  signal: AbortSignal,
): Promise<ReleaseResult> {
  const tombstone = await getTombstone(context, subnet, signal);
  const text = formatPrefix(subnet);
  if (!tombstone) return refuse(`${text} is neither leased nor reserved`, 'see what is with: tartan leases -o wide');
  if (!tombstone.reserved && !force) return refuseKept(tombstone, 'this is no reservation');
  if (await deleteTombstone(context, tombstone, signal)) return { kind: 'free' };
  return refuse(`${text} was taken meanwhile`, 'see by whom with: tartan leases');
}

async function convertToLease(
  context: ReleaseContext,
  lease: Lease & { readonly nodeId: string },
  signal: AbortSignal,
): Promise<ReleaseResult | undefined> {
  const { kv, clock } = context;
  const { nodeId, subnet } = lease;
  const grant: Grant = {
    leaseId: await kv.grantLease(graceSeconds, { signal }),
    tombstoneLeaseId: await kv.grantLease(tombstoneSeconds(defaultTtlSeconds), { signal }),
    sentAtMs: clock.now(),
  };
  const result = await rewriteKey(context, lease, lease, grant, signal);
  if (typeof result === 'string') {
    await dropLeases(context, idsOf(grant), signal);
    return undefined;
  }
  for (const endMs = clock.now() + answerMs; clock.now() < endMs; await clock.sleep(pollMs, signal)) {
    const entry = await getEntry(context, subnet, signal);
    const answered = entry?.kind === 'lease' && entry.lease.leaseId !== grant.leaseId && entry.lease.nodeId === nodeId;
    if (!answered) continue;
    await dropLeases(context, idsOf(grant), signal);
    return { kind: 'leased', nodeId };
  }
  return { kind: 'ending', nodeId, seconds: graceSeconds };
}

function refuse(reason: string, next: string): Refusal {
  return { kind: 'refused', reason, next };
}
