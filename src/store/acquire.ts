/**
 * From "we are this node" to a lease in our hands. One attempt surveys the cluster, decides, and writes by one guarded
 * transaction; a lost race or an unanswered write only leads to the next attempt, which finds what really happened by
 * our node id.
 */
import { chooseSubnet, isFree } from '../model/allocation.js';
import { backoffMs } from '../lib/backoff.js';
import { isTartanError, TartanError } from '../lib/errors.js';
import { Repeated } from '../lib/log.js';
import { formatPrefix, samePrefix, type Prefix } from '../model/ipv4.js';
import { formatLeaseValue, type BackendInfo, type Lease, type LeaseValue } from '../model/lease.js';
import { isLeasable, subnetCount } from '../model/network.js';
import { createKey, deleteKey, dropGrant, grantLease, rewriteKey, type Claim, type Grant } from './claim.js';
import type { StoreContext } from './context.js';
import { refuseDuplicates } from './identity.js';
import type { LeaseRequest } from './store.js';
import { isOurs, Surveyor, type Survey } from './survey.js';

/** Many hosts may start at once, and each success of one spoils the tries of all others that are under way. */
const lostRace = { firstMs: 400, capMs: 1_200 };
const unavailable = { firstMs: 200, capMs: 5_000 };

/** @throws TartanError NO_FREE_SUBNET, DUPLICATE_NODE, PERMISSION */
export async function acquireLease(context: StoreContext, want: LeaseRequest, signal: AbortSignal): Promise<Claim> {
  return new Acquisition(context, want, signal).run();
}

/** What a node publishes. */
export function valueOf(want: Pick<LeaseRequest, 'node'>): LeaseValue & { readonly nodeId: string } {
  const { id, bootId, publicIp } = want.node;
  const backend: BackendInfo = { type: 'udp' };
  return { publicIp, backend, nodeId: id, bootId, released: false };
}

type Target = { readonly kind: 'adopt'; readonly lease: Lease } | { readonly kind: 'create'; readonly subnet: Prefix };

class Acquisition {
  readonly #context: StoreContext;
  readonly #want: LeaseRequest;
  readonly #signal: AbortSignal;
  readonly #surveyor: Surveyor;
  /** Granted once and kept over lost races. */
  #grant: Grant | undefined;

  constructor(context: StoreContext, want: LeaseRequest, signal: AbortSignal) {
    this.#context = context;
    this.#want = want;
    this.#signal = signal;
    this.#surveyor = new Surveyor(context);
  }

  async run(): Promise<Claim> {
    const { clock, log } = this.#context;
    const said = new Repeated();
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
          if (said.due()) log.warn('store.unavailable', error.message, { attempt: failures });
          await clock.sleep(backoffMs(failures, unavailable), this.#signal);
        }
      }
      return claim;
    } finally {
      const spare = this.#grant;
      if (spare && spare.leaseId !== claim?.lease.leaseId)
        await dropGrant(this.#context, spare.leaseId, AbortSignal.timeout(3_000)).catch(() => {});
    }
  }

  /** @returns undefined when another try will do better */
  async #attempt(): Promise<Claim | undefined> {
    const { node, network } = this.#want;
    const survey = await this.#surveyor.take(network, this.#signal);
    await refuseDuplicates(this.#context, survey.leases, node, this.#signal);
    const own = survey.leases.filter(lease => isOurs(lease, node));
    const misfits = own.filter(lease => lease.leaseId !== '0' && !isLeasable(network, lease.subnet));
    if (misfits.length > 0) {
      await this.#remove(misfits, 'it does not fit the network any more');
      return undefined;
    }
    const target = chooseTarget(this.#want, own, survey, this.#context.reuseQuarantined);
    if (!target) throw noFreeSubnet(this.#want, survey);
    const claim =
      target.kind === 'adopt' ? await this.#adopt(target.lease, survey) : await this.#create(target, survey);
    if (!claim) return undefined;
    const others = own.filter(lease => lease.leaseId !== '0' && !samePrefix(lease.subnet, claim.lease.subnet));
    await this.#remove(others, `we keep ${formatPrefix(claim.lease.subnet)}`).catch((error: unknown) => {
      // The lease in hand counts; one left over ends with its own time.
      if (!isTartanError(error)) throw error;
    });
    return claim;
  }

  async #create(target: { readonly subnet: Prefix }, survey: Survey): Promise<Claim | undefined> {
    const grant = await this.#freshGrant();
    const request = { subnet: target.subnet, value: valueOf(this.#want), grant, survey };
    return this.#settle(await createKey(this.#context, request, this.#signal));
  }

  async #adopt(lease: Lease, survey: Survey): Promise<Claim | undefined> {
    const value = valueOf(this.#want);
    const renewed = await this.#renew(lease);
    const unchanged = formatLeaseValue(lease) === formatLeaseValue(value) && holds(survey, lease.subnet, value.nodeId);
    if (renewed && unchanged) return { lease, sentAtMs: renewed.sentAtMs };
    const grant = renewed ?? (await this.#freshGrant());
    const claim = this.#settle(await rewriteKey(this.#context, lease, value, grant, this.#signal));
    if (claim && !renewed && lease.nodeId !== undefined)
      await dropGrant(this.#context, lease.leaseId, this.#signal).catch(() => {});
    return claim;
  }

  /** The etcd lease the key already has, if it is of the wanted length and alive; a reservation has none to renew. */
  async #renew(lease: Lease): Promise<Grant | undefined> {
    const { kv, clock } = this.#context;
    const { leaseId } = lease;
    if (leaseId === '0') return { leaseId, sentAtMs: clock.now() };
    if (lease.nodeId === undefined) return undefined;
    const time = await kv.timeToLive(leaseId, { signal: this.#signal });
    if (time?.grantedSeconds !== this.#want.ttlSeconds) return undefined;
    const sentAtMs = clock.now();
    const ttlSeconds = await kv.keepAlive(leaseId, 3_000, { signal: this.#signal });
    return ttlSeconds > 0 ? { leaseId, sentAtMs } : undefined;
  }

  async #freshGrant(): Promise<Grant> {
    const { ttlSeconds } = this.#want;
    const { clock } = this.#context;
    if (this.#grant && clock.now() - this.#grant.sentAtMs > ttlSeconds * 250) {
      await dropGrant(this.#context, this.#grant.leaseId, this.#signal);
      this.#grant = undefined;
    }
    this.#grant ??= await grantLease(this.#context, ttlSeconds, this.#signal);
    return this.#grant;
  }

  #settle(result: Claim | 'refused' | 'lease-gone'): Claim | undefined {
    if (result === 'lease-gone') this.#grant = undefined;
    return typeof result === 'string' ? undefined : result;
  }

  async #remove(leases: readonly Lease[], why: string): Promise<void> {
    for (const lease of leases) {
      if (!(await deleteKey(this.#context, lease, this.#signal))) continue;
      const subnet = formatPrefix(lease.subnet);
      this.#context.log.info('lease.removed', `our old lease of ${subnet} is given back: ${why}`, { subnet });
    }
  }
}

/** State file, own entry in the store, `subnet.env`, then whatever is free. */
function chooseTarget(
  want: LeaseRequest,
  own: readonly Lease[],
  survey: Survey,
  reuseQuarantined: boolean,
): Target | undefined {
  const { network, node, previous } = want;
  const allocation = { network, taken: survey.taken, tombstones: survey.tombstones, nodeId: node.id };
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
  const found = from('state') ?? (entry && at(entry.subnet)) ?? from('subnet-env');
  if (found) return found;
  const subnet = chooseSubnet({ ...allocation, reuseQuarantined, random: Math.random });
  return subnet && { kind: 'create', subnet };
}

function holds(survey: Survey, subnet: Prefix, nodeId: string): boolean {
  return survey.tombstones.some(entry => entry.nodeId === nodeId && samePrefix(entry.subnet, subnet));
}

function noFreeSubnet(want: LeaseRequest, survey: Survey): TartanError {
  const { network, node } = want;
  const quarantined = survey.tombstones.filter(
    ({ nodeId, subnet }) => nodeId !== node.id && !survey.taken.some(other => samePrefix(other, subnet)),
  ).length;
  return new TartanError(
    'NO_FREE_SUBNET',
    `no free /${network.subnetLength} in ${formatPrefix(network.network)}: of ${subnetCount(network)} subnets ` +
      `${survey.leases.length} are leased and ${quarantined} kept for nodes that left without a goodbye. ` +
      `Enlarge the network, release leases, or allow --reuse-quarantined`,
  );
}
