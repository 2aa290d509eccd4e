/**
 * Follows what carries the tunnel: when our address is gone another one is chosen, when the MTU of its link changes the
 * tunnel's does. The choice is sticky: as long as the address is there it stays ours, whatever else comes and goes.
 */
import type { Clock } from '../lib/clock.js';
import { messageOf } from '../lib/errors.js';
import { LogThrottle, type Log } from '../lib/log.js';
import { Wake } from '../lib/wake.js';
import { formatIpv4 } from '../model/ipv4.js';
import type { UnderlayAddress } from '../model/node.js';
import type { LocalNode } from './local-node.js';
import type { HostNetwork, Underlay } from '../host/host.js';

export interface UnderlayWatch {
  readonly host: HostNetwork;
  readonly clock: Clock;
  readonly log: Log;
  readonly node: Pick<LocalNode, 'current'>;
  readonly underlay: Pick<Underlay, 'choose'>;
  /** Uses another one. @throws when it cannot; it is tried again, or another one by then */
  readonly move: (to: UnderlayAddress) => Promise<void>;
  /** undefined when all is well again. */
  readonly onProblem: (problem: string | undefined) => void;
}

/** Whoever renumbers a link removes the old address first: what is there meanwhile is no choice. */
const graceMs = 250;
const retryMs = 1_000;
/** Looked at without a change, for one that was not heard. */
const sweepMs = 10_000;

/** Ends by abort only: rejects with the signal's reason. */
export async function watchUnderlay(watch: UnderlayWatch, signal: AbortSignal): Promise<never> {
  const wake = new Wake();
  const throttle = new LogThrottle();
  watch.host.onChange(() => wake.ring());
  for (;;) {
    let failed = false;
    try {
      await followUnderlay(watch, signal);
      watch.onProblem(undefined);
      throttle.reset();
    } catch (error) {
      signal.throwIfAborted();
      failed = true;
      const problem = `underlay_lost: ${messageOf(error)}`;
      watch.onProblem(problem);
      if (throttle.due()) watch.log.warn('underlay.lost', problem);
    }
    await wake.wait(failed ? retryMs : sweepMs, signal);
  }
}

async function followUnderlay(watch: UnderlayWatch, signal: AbortSignal): Promise<void> {
  const before = watch.node.current;
  let next = await kept(watch.host, before);
  if (!next) {
    await watch.clock.sleep(graceMs, signal);
    next = (await kept(watch.host, before)) ?? (await watch.underlay.choose());
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

/** The same address with the MTU of now; undefined when the link has it no more. */
async function kept(host: HostNetwork, now: UnderlayAddress): Promise<UnderlayAddress | undefined> {
  const link = (await host.interfaces()).find(({ name }) => name === now.interface.name);
  const isThere = link?.addresses.some(({ address }) => address === now.interface.address);
  return link && isThere ? { ...now, interface: { ...now.interface, mtu: link.mtu } } : undefined;
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
  const seen = publicIp === link.address ? '' : `, seen as ${formatIpv4(publicIp)}`;
  return `${formatIpv4(link.address)} on ${link.name} with MTU ${link.mtu}${seen}`;
}
