/**
 * Watches the underlay address. When the address is gone, another one is chosen. When the MTU of its link changes, the
 * MTU of the tunnel follows. The choice is sticky: the address stays in use as long as it exists.
 */
import type { Clock } from '../lib/clock.js';
import { isTartanError, messageOf } from '../lib/errors.js';
import { LogThrottle, type Log } from '../lib/log.js';
import { Wake } from '../lib/wake.js';
import { formatIpv4, type Prefix } from '../model/ip.js';
import type { UnderlayAddress } from '../model/node.js';
import type { LocalNode } from './local-node.js';
import type { HostNetwork, PeerAddresses, Underlay } from '../host/host.js';

export interface UnderlayWatch {
  readonly host: HostNetwork;
  readonly clock: Clock;
  readonly log: Log;
  readonly node: Pick<LocalNode, 'current'>;
  readonly underlay: Pick<Underlay, 'choose' | 'current' | 'refresh'>;
  /** The network of this host, which must contain nothing of the underlay. */
  readonly network: Prefix;
  /** The addresses of the peers of now. */
  readonly peers: () => PeerAddresses;
  /** Moves the tunnel to another address. @throws when that fails; the watch then chooses and moves again */
  readonly move: (to: UnderlayAddress) => Promise<void>;
  /** Called after each check, with undefined when there is no problem. */
  readonly onProblem: (problem: string | undefined) => void;
}

/** Renumbering a link usually removes the old address first: the watch waits so long for the new one. */
const graceMs = 250;
const retryMs = 1_000;
/** How often the watch checks without a ring, because a ring may be missed. */
const sweepMs = 30_000;

/** Ends by abort only: rejects with the signal's reason. */
export async function watchUnderlay(watch: UnderlayWatch, signal: AbortSignal): Promise<never> {
  const wake = new Wake();
  const throttle = new LogThrottle();
  watch.host.onChange(() => wake.ring());
  for (;;) {
    let failed = false;
    try {
      await checkUnderlay(watch, signal);
      await watch.underlay.refresh(watch.network);
      watch.onProblem(undefined);
      throttle.reset();
    } catch (error) {
      signal.throwIfAborted();
      failed = true;
      const isLost = !isTartanError(error, 'CONFIG_INVALID');
      const problem = `${isLost ? 'underlay_lost' : 'underlay_conflict'}: ${messageOf(error)}`;
      watch.onProblem(problem);
      if (throttle.due()) watch.log.warn(isLost ? 'underlay.lost' : 'underlay.conflict', problem);
    }
    await wake.wait(failed ? retryMs : sweepMs, signal);
  }
}

async function checkUnderlay(watch: UnderlayWatch, signal: AbortSignal): Promise<void> {
  const before = watch.node.current;
  let next = await watch.underlay.current(before, watch.peers());
  if (!next) {
    await watch.clock.sleep(graceMs, signal);
    next = (await watch.underlay.current(before, watch.peers())) ?? (await watch.underlay.choose());
  }
  if (isSame(before, next)) return;
  await watch.move(next);
  watch.log.info(
    'underlay.changed',
    `the tunnel leaves from ${formatUnderlay(next)}, before ${formatUnderlay(before)}`,
    {
      interface: next.interface.name,
      address: formatIpv4(next.interface.address),
      publicIp: formatIpv4(next.publicIp),
      mtu: next.interface.mtu,
    },
  );
}

function isSame(a: UnderlayAddress, b: UnderlayAddress): boolean {
  return (
    a.publicIp === b.publicIp &&
    a.interface.name === b.interface.name &&
    a.interface.address === b.interface.address &&
    a.interface.mtu === b.interface.mtu
  );
}

function formatUnderlay({ publicIp, interface: link }: UnderlayAddress): string {
  const publicText = publicIp === link.address ? '' : `, seen as ${formatIpv4(publicIp)}`;
  return `${formatIpv4(link.address)} on ${link.name} with MTU ${link.mtu}${publicText}`;
}
