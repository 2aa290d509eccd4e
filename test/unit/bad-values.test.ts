/** Every row of test/vectors/bad-values.json through the parsers; the same rows in a real etcd are an e2e test. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { formatIpv4, formatPrefix, parseIpv4, parsePrefix } from '../../src/model/ip.js';
import { parseLeaseValue, readLeaseKey, type Lease } from '../../src/model/lease.js';
import { vetLeases } from '../../src/model/lease-set.js';
import { parseNetworkConfig } from '../../src/model/network.js';
import { refuseOwnUnderlay } from '../../src/host/underlay/check.js';
import { chooseBackend } from '../../src/backend/all.js';

type Row = { id: string; kind: string; name: string; expect: string; value: string | { key: string; value: string } };
const rows: readonly Row[] = JSON.parse(readFileSync(new URL('../vectors/bad-values.json', import.meta.url), 'utf8'));

/** The file abbreviates long values as `A*1500000`. */
function expand(text: string): string {
  return text.replace(/A\*(\d+)/, (_, count: string) => 'A'.repeat(Number(count)));
}

const node = {
  id: 'n',
  bootId: 'b',
  publicIp: parseIpv4('192.0.2.1'),
  interface: { name: 'eth0', address: parseIpv4('192.0.2.1'), mtu: 1500 },
};

function configReaction(text: string): string {
  try {
    const network = parseNetworkConfig(expand(text));
    refuseOwnUnderlay(network.network, {
      interfaceName: 'eth0',
      prefix: parsePrefix('192.0.2.0/24'),
      address: node.publicIp,
      publicIp: node.publicIp,
      gateway: undefined,
      etcdAddresses: [],
      connected: [],
    });
    chooseBackend({ network, node, ipMasquerade: 'off', forwardRules: true, engine: 'user' });
    const { port } = network.backend;
    return `accepted ${formatPrefix(network.network)} /${network.subnetLength} port ${port}${network.warnings.length > 0 ? ' warned' : ''}`;
  } catch (error) {
    return `refused ${(error as { code?: string }).code}`;
  }
}

describe('network documents', () => {
  const accepted: Record<string, string> = {
    V11: 'accepted 10.5.0.0/16 /24 port 8285 warned',
    V25: 'accepted 10.5.0.0/16 /24 port 8285',
    V41: 'accepted 10.5.0.0/16 /24 port 8285',
    V47: 'accepted 10.6.0.0/16 /24 port 8285',
    V49: 'accepted 10.5.0.0/16 /24 port 8285',
    // Sound in itself; that it excludes a running host's subnet is the agent's business (config_mismatch).
    V53: 'accepted 10.77.0.0/16 /24 port 8285',
  };
  for (const row of rows.filter(({ kind }) => kind === 'config')) {
    it(`${row.id} ${row.name}`, () => {
      expect(configReaction(row.value as string)).toBe(accepted[row.id] ?? 'refused CONFIG_INVALID');
    });
  }
});

function leaseReaction(key: string, value: string): string {
  const subnet = readLeaseKey(key);
  if (!subnet) return 'refused';
  try {
    const parsed = parseLeaseValue(expand(value));
    const lease: Lease = { ...parsed, subnet, createRevision: 2n, revision: 2n, leaseId: '0' };
    const self = { network: parsePrefix('10.5.0.0/16'), subnet: parsePrefix('10.5.1.0/24'), publicIp: node.publicIp };
    const { peers } = vetLeases({ leases: [lease], rejected: [], revision: 2n }, self);
    return peers[0] ? `peer ${formatIpv4(peers[0].publicIp)}` : 'refused';
  } catch {
    return 'refused';
  }
}

describe('leases', () => {
  const accepted: Record<string, string> = { V73: 'peer 192.0.2.2', V101: 'peer 192.0.2.2', V105: 'peer 192.0.2.2' };
  for (const row of rows.filter(({ kind }) => kind === 'lease')) {
    it(`${row.id} ${row.name}`, () => {
      const { key, value } = row.value as { key: string; value: string };
      for (const name of row.id === 'V73' ? key.split(' and ') : [key]) {
        expect(leaseReaction(name, value)).toBe(accepted[row.id] ?? 'refused');
      }
    });
  }
});
