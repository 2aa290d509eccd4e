/** A planned leave: a word of goodbye, so that peers drop the route at once, then the key, and the subnet is free. */
import { formatLeaseValue } from '../model/lease.js';
import type { Node } from '../model/node.js';
import type { Prefix } from '../model/ipv4.js';
import { deleteKey } from './claim.js';
import type { StoreContext } from './context.js';
import { readEntry } from './entries.js';
import { onlyKey } from './keys.js';

/** Long enough for watchers to see the goodbye before the delete. */
const goodbyeMs = 200;
const longestMs = 10_000;

/** A key that is not ours any more is left alone; a reservation stays, marked released. */
export async function releaseLease(context: StoreContext, node: Node, subnet: Prefix): Promise<void> {
  const { kv, keys, clock } = context;
  const signal = AbortSignal.timeout(longestMs);
  const key = keys.subnet(subnet);
  const [found] = (await kv.list(onlyKey(key), { signal })).entries;
  if (!found) return forget(context, node, subnet, signal);
  const entry = readEntry(keys, found);
  if (entry.kind !== 'lease' || entry.lease.nodeId !== node.id) return;
  const { lease } = entry;
  const value = Buffer.from(formatLeaseValue({ ...lease, released: true }));
  const { outcome, revision } = await kv.commit(
    [
      { kind: 'lease', key, leaseId: lease.leaseId },
      { kind: 'modified-at', key, revision: lease.revision },
    ],
    [{ kind: 'put', key, value, leaseId: lease.leaseId }],
    { signal },
  );
  if (outcome !== 'done' || lease.leaseId === '0') return;
  await clock.sleep(goodbyeMs, signal);
  await deleteKey(context, { ...lease, revision }, signal);
}

/** The key is gone already: what is left is that nobody else may have the subnet. */
async function forget(context: StoreContext, node: Node, subnet: Prefix, signal: AbortSignal): Promise<void> {
  const { kv, keys } = context;
  const held = keys.heldBy(subnet);
  await kv.commit(
    [
      { kind: 'absent', key: keys.subnet(subnet) },
      { kind: 'value', key: held, value: Buffer.from(node.id) },
    ],
    [{ kind: 'delete', key: held }],
    { signal },
  );
}
