/** Opens what the commands read and write in etcd. */
import { bootClock } from '../lib/clock.js';
import { silentLog } from '../lib/log.js';
import { openEtcd } from '../store/etcd/etcd-kv.js';
import type { EtcdOptions } from '../store/etcd/options.js';
import { Keys } from '../store/keys.js';
import { getNetworkText, putNetworkText, readTimedLeases } from '../store/operator.js';
import { releaseNode } from '../store/release.js';
import { releaseReservation, reserve } from '../store/reservation.js';
import { withdrawFeatures } from '../store/withdraw-features.js';
import type { ToolStore } from './ports.js';

export function openStore(options: EtcdOptions): ToolStore {
  // The operator sees messages of etcd as the error of the call.
  const kv = openEtcd(options, silentLog);
  const { prefix } = options;
  const context = { kv, keys: new Keys(prefix), clock: bootClock };
  // Each call has a deadline of its own, and Ctrl-C ends the process.
  const { signal } = new AbortController();
  return {
    listLeases: () => readTimedLeases(kv, prefix, { signal }),
    getNetworkText: () => getNetworkText(kv, prefix, { signal }),
    putNetworkText: text => putNetworkText(kv, prefix, text, { signal }),
    reserve: request => reserve(context, request, signal),
    release: (subnet, force) => releaseReservation(context, subnet, force, signal),
    releaseNode: nodeId => releaseNode(context, nodeId, signal),
    withdrawFeatures: nodeId => withdrawFeatures(context, nodeId, signal),
    close: () => kv.close(),
  };
}
