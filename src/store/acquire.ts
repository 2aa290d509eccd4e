/**
 * From "we are this node" to a lease in our hands. One attempt surveys the cluster, decides, and writes by one guarded
 * transaction; a lost race or an unanswered write only leads to the next attempt, which finds what really happened by
 * our node id.
 */
import { chooseQuarantined, chooseSubnet, isFree, type Tombstone } from '../model/allocation.js';
import { backoffMs } from '../lib/retry.js';
import { isTartanError } from '../lib/errors.js';
import { LogThrottle } from '../lib/log.js';
import { formatPrefix, prefixesOverlap, samePrefix, type Prefix } from '../model/ipv4.js';
import { formatLeaseValue, type BackendInfo, type Lease, type LeaseValue } from '../model/lease.js';
import { isLeasable } from '../model/network.js';
import {
  createKey,
  deleteKey,
  dropLeases,
  grantLease,
  idsOf,
  reservationAt,
  rewriteKey,
  tombstoneOf,
  type Claim,
  type Grant,
} from './claim.js';
import type { StoreContext } from './context.js';
import { noFreeSubnet } from './exhaustion.js';
import { refuseDuplicates } from './duplicates.js';
import { tombstoneSeconds } from './quarantine.js';
import type { LeaseRequest } from './store.js';
import { isOwnLease, type ClusterSnapshot, type SnapshotReader } from './cluster-snapshot.js';

/** Many hosts may start at once, and each success of one spoils the tries of all others that are under way. */
const lostRace = { firstMs: 400, capMs: 1_200 };
const unavailable = { firstMs: 200, capMs: 5_000 };

/** @throws TartanError NO_FREE_SUBNET, DUPLICATE_NODE, PERMISSION */
export async function acquireLease(
  context: StoreContext,
  reader: SnapshotReader,
  want: LeaseRequest,
  signal: AbortSignal,
): Promise<Claim> {
  return new Acquisition(context, reader, want, signal).run();
}

/** What a node publishes. */
export function ownLeaseValue(want: Pick<LeaseRequest, 'node'>): LeaseValue & { readonly nodeId: string } {
  const { id, bootId, publicIp } = want.node;
  const backend: BackendInfo = { type: 'udp' };
  return { publicIp, backend, nodeId: id, bootId, released: false };
}

type Target = { readonly kind: 'adopt'; readonly lease: Lease } | { readonly kind: 'create'; readonly subnet: Prefix };

class Acquisition {
  readonly #context: StoreContext;
  readonly #want: LeaseRequest;
  readonly #signal: AbortSignal;
  readonly #reader: SnapshotReader;
  /** Granted once and kept over lost races. */
  #grant: Grant | undefined;
  /** A write with it was not answered: it may have been done, or be done later. */
  #maybeUsed = false;

  constructor(context: StoreContext, reader: SnapshotReader, want: LeaseRequest, signal: AbortSignal) {
    this.#context = context;
    this.#want = want;
    this.#signal = signal;
    this.#reader = reader;
  }

  async run(): Promise<Claim> {
    const { clock, log } = this.#context;
    const throttle = new LogThrottle();
    let claim: Claim | undefined;
    try {
      for (let races = 0, failures = 0; !claim;) {
        try {
          claim = await this.#attempt();
          failures = 0;
          if (!claim) await clock.sleep(backoffMs(++races, lostRace), this.#signal);
        } catch (error) {
          this.#signal.throwIfAborted();
          if (!isTartanError(error, 'STORE_UNAVAILABLE')) throw error;
          failures++;
          if (throttle.due()) log.warn('store.unavailable', error.message, { attempt: failures });
          await clock.sleep(backoffMs(failures, unavailable), this.#signal);
        }
      }
      return claim;
    } finally {
      if (this.#grant?.leaseId !== claim?.lease.leaseId)
        await this.#dropGrant(AbortSignal.timeout(3_000)).catch(() => {});
    }
  }

  /** @returns undefined when another try will do better */
  async #attempt(): Promise<Claim | undefined> {
    const { node, network } = this.#want;
    const snapshot = await this.#reader.readSnapshot(network, this.#signal);
    await refuseDuplicates(this.#context, snapshot.leases, node, this.#signal);
    const own = snapshot.leases.filter(lease => isOwnLease(lease, node));
    const misfits = own.filter(lease => lease.leaseId !== '0' && !isLeasable(network, lease.subnet));
    if (misfits.length > 0) {
      await this.#remove(misfits, snapshot, 'it does not fit the network any more');
      return undefined;
    }
    const target = chooseTarget(this.#want, own, snapshot) ?? (await this.#quarantined(snapshot));
    const claim =
      target.kind === 'adopt' ? await this.#adopt(target.lease, snapshot) : await this.#create(target, snapshot);
    if (!claim) return undefined;
    const others = own.filter(lease => lease.leaseId !== '0' && !samePrefix(lease.subnet, claim.lease.subnet));
    await this.#remove(others, snapshot, `we keep ${formatPrefix(claim.lease.subnet)}`).catch((error: unknown) => {
      // The lease in hand counts; one left over ends with its own time.
      if (!isTartanError(error)) throw error;
    });
    return claim;
  }

  /** @throws TartanError NO_FREE_SUBNET */
  async #quarantined(snapshot: ClusterSnapshot): Promise<Target> {
    const { quarantine, reuseQuarantined } = this.#context;
    const { network, node } = this.#want;
    const aged = await quarantine.judge(keptForOthers(snapshot, node.id), this.#signal);
    const request = { network, taken: snapshot.taken, nodeId: node.id, random: Math.random };
    const subnet = chooseQuarantined(request, aged, reuseQuarantined);
    if (!subnet) throw noFreeSubnet(network, snapshot.leases.length, aged);
    return { kind: 'create', subnet };
  }

  async #create(target: { readonly subnet: Prefix }, snapshot: ClusterSnapshot): Promise<Claim | undefined> {
    const reserved = tombstoneOf(snapshot, target.subnet)?.reserved === true;
    const grant = reserved ? reservationAt(this.#context.clock.now()) : await this.#freshGrant();
    const request = { subnet: target.subnet, value: ownLeaseValue(this.#want), grant, snapshot };
    return this.#settle(createKey(this.#context, request, this.#signal));
  }

  async #adopt(lease: Lease, snapshot: ClusterSnapshot): Promise<Claim | undefined> {
    const value = ownLeaseValue(this.#want);
    const tombstone = tombstoneOf(snapshot, lease.subnet);
    const tombstoneLeaseId = tombstone?.nodeId === value.nodeId ? tombstone.leaseId : undefined;
    const renewed = await this.#renew(lease, tombstoneLeaseId);
    const unchanged =
      formatLeaseValue(lease) === formatLeaseValue(value) && tombstoneLeaseId === renewed?.tombstoneLeaseId;
    if (renewed && unchanged) return { ...renewed, lease };
    const grant = renewed ?? (await this.#freshGrant());
    const claim = await this.#settle(rewriteKey(this.#context, lease, value, grant, this.#signal));
    if (!claim) return undefined;
    const spent = [lease.nodeId === undefined ? '0' : lease.leaseId, tombstone?.leaseId ?? '0'];
    const unused = spent.filter(id => !idsOf(grant).includes(id));
    await dropLeases(this.#context, unused, this.#signal).catch(() => {});
    return claim;
  }

  /** The etcd leases the subnet already has, if of the wanted length and alive; a reservation has none to renew. */
  async #renew(lease: Lease, tombstoneLeaseId: string | undefined): Promise<Grant | undefined> {
    const { kv, clock } = this.#context;
    const { ttlSeconds } = this.#want;
    const { leaseId } = lease;
    if (leaseId === '0') return reservationAt(clock.now());
    if (lease.nodeId === undefined || tombstoneLeaseId === undefined || tombstoneLeaseId === '0') return undefined;
    const time = await kv.timeToLive(leaseId, { signal: this.#signal });
    if (time?.grantedSeconds !== ttlSeconds) return undefined;
    const sentAtMs = clock.now();
    const [granted = 0, tombstoneGranted] = await kv.keepAlive([leaseId, tombstoneLeaseId], 3_000, {
      signal: this.#signal,
    });
    return granted > 0 && tombstoneGranted === tombstoneSeconds(ttlSeconds)
      ? { leaseId, tombstoneLeaseId, sentAtMs }
      : undefined;
  }

  async #freshGrant(): Promise<Grant> {
    const { ttlSeconds } = this.#want;
    const { clock } = this.#context;
    if (this.#grant && clock.now() - this.#grant.sentAtMs > ttlSeconds * 250) await this.#dropGrant(this.#signal);
    this.#grant ??= await grantLease(this.#context, ttlSeconds, this.#signal);
    return this.#grant;
  }

  async #settle(writing: Promise<Claim | 'refused' | 'lease-gone'>): Promise<Claim | undefined> {
    try {
      const result = await writing;
      if (result === 'lease-gone') this.#grant = undefined;
      return typeof result === 'string' ? undefined : result;
    } catch (error) {
      this.#maybeUsed = true;
      throw error;
    }
  }

  /**
   * Nobody else may have the subnet while our data plane may still use it: a tombstone that may hang on the grant stays,
   * and ends with its own time.
   */
  async #dropGrant(signal: AbortSignal): Promise<void> {
    if (!this.#grant) return;
    const leaseIds = this.#maybeUsed ? [this.#grant.leaseId] : idsOf(this.#grant);
    this.#grant = undefined;
    this.#maybeUsed = false;
    await dropLeases(this.#context, leaseIds, signal);
  }

  async #remove(leases: readonly Lease[], snapshot: ClusterSnapshot, why: string): Promise<void> {
    for (const lease of leases) {
      if (!(await deleteKey(this.#context, lease, tombstoneOf(snapshot, lease.subnet), this.#signal))) continue;
      const subnet = formatPrefix(lease.subnet);
      this.#context.log.info('lease.removed', `our old lease of ${subnet} is given back: ${why}`, { subnet });
    }
  }
}

/** What we lease by the state file, what is reserved for us, state file, own entry, `subnet.env`, then what is free. */
function chooseTarget(want: LeaseRequest, own: readonly Lease[], snapshot: ClusterSnapshot): Target | undefined {
  const { network, node, previous } = want;
  const allocation = { network, taken: snapshot.taken, tombstones: snapshot.tombstones, nodeId: node.id };
  const fitting = own.filter(({ subnet }) => isLeasable(network, subnet));
  const at = (subnet: Prefix): Target | undefined => {
    const lease = fitting.find(entry => samePrefix(entry.subnet, subnet));
    if (lease) return { kind: 'adopt', lease };
    return isFree(allocation, subnet) ? { kind: 'create', subnet } : undefined;
  };
  const from = (source: 'state' | 'subnet-env'): Target | undefined =>
    previous.flatMap(item => (item.source === source ? (at(item.subnet) ?? []) : []))[0];
  // An entry with our id says more than one with our address only.
  const entry = fitting.find(lease => lease.nodeId !== undefined) ?? fitting[0];
  const state = from('state');
  if (state?.kind === 'adopt') return state;
  const reserved =
    fitting.find(({ leaseId }) => leaseId === '0') ??
    snapshot.tombstones.find(tombstone => tombstone.reserved && tombstone.nodeId === node.id);
  const found = (reserved && at(reserved.subnet)) ?? state ?? (entry && at(entry.subnet)) ?? from('subnet-env');
  if (found) return found;
  const subnet = chooseSubnet({ ...allocation, random: Math.random });
  return subnet && { kind: 'create', subnet };
}

/** Tombstones that keep room from us: of other nodes, where nobody leases now. */
function keptForOthers({ tombstones, taken }: ClusterSnapshot, nodeId: string): readonly Tombstone[] {
  return tombstones.filter(
    tombstone => tombstone.nodeId !== nodeId && !taken.some(other => prefixesOverlap(other, tombstone.subnet)),
  );
}
