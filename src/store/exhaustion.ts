/** The error of a node for which nothing is left: what fills the network, and what an operator can do about it. */
import { TartanError } from '../lib/errors.js';
import { oldestFirst, quarantineTtls, type AgedTombstone } from '../model/allocation.js';
import { formatPrefix } from '../model/ipv4.js';
import { subnetCount, type NetworkConfig } from '../model/network.js';

const named = 3;

/** @param kept tombstones of other nodes where nobody leases now */
export function noFreeSubnet(network: NetworkConfig, leased: number, kept: readonly AgedTombstone[]): TartanError {
  const reserved = kept.filter(tombstone => tombstone.reserved).length;
  const oldest = kept.filter(tombstone => !tombstone.reserved).sort(oldestFirst);
  const left =
    oldest.length === 0
      ? 'Enlarge the network or release leases'
      : `Kept longest: ${oldest.slice(0, named).map(describe).join(', ')}${oldest.length > named ? ', ...' : ''}. ` +
        `The oldest is given away ${quarantineTtls} lease times after its last sign of life. Sooner: enlarge the network, ` +
        `or where that node is surely gone, tartan lease release --force SUBNET or the flag --reuse-quarantined`;
  return new TartanError(
    'NO_FREE_SUBNET',
    `no free /${network.subnetLength} in ${formatPrefix(network.network)}: of ${subnetCount(network)} subnets ` +
      `${leased} are leased, ${reserved} reserved for nodes to come and ${oldest.length} kept for nodes that left ` +
      `without a goodbye. ${left}`,
  );
}

function describe({ subnet, nodeId, ageSeconds }: AgedTombstone): string {
  const age = ageSeconds === undefined ? 'for good' : `unheard of for ${ageSeconds} s`;
  return `${formatPrefix(subnet)} of node ${nodeId.replace(/[^\x20-\x7e]/g, '?')} (${age})`;
}
