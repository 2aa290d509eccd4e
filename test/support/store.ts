/** Small makers for tests of the store. */
import { setTimeout as delay } from 'node:timers/promises';
import { parseIpv4, parsePrefix } from '../../src/model/ip.js';
import { noFeatures } from '../../src/model/features.js';
import type { BackendInfo } from '../../src/model/lease.js';
import { parseNetworkConfig, type NetworkConfig } from '../../src/model/network.js';
import type { Node } from '../../src/model/node.js';
import type { Kv } from '../../src/store/kv.js';
import type { LeaseRequest, PreviousSubnet } from '../../src/store/store.js';

export const prefix = '/coreos.com/network';
/** What the udp backend announces. */
export const udp: BackendInfo = { type: 'udp', data: undefined };

export function networkOf(text = '10.5.0.0/16', more: object = {}): NetworkConfig {
  return parseNetworkConfig(JSON.stringify({ Network: text, ...more }));
}

export function nodeOf(number: number, more: Partial<Node> = {}): Node {
  const publicIp = parseIpv4(`192.0.${2 + (number >> 8)}.${number & 255}`);
  return {
    id: `node-${number}`,
    bootId: `boot-${number}`,
    publicIp,
    interface: { name: 'eth0', address: publicIp, mtu: 1500 },
    ...more,
  };
}

export function requestOf(node: Node, more: Partial<LeaseRequest> = {}): LeaseRequest {
  return { node, network: networkOf(), backend: udp, features: noFeatures, previous: [], ttlSeconds: 60, ...more };
}

export function before(text: string, source: PreviousSubnet['source'] = 'state'): PreviousSubnet {
  return { subnet: parsePrefix(text), source };
}

const signal = new AbortController().signal;

export async function put(kv: Kv, key: string | Buffer, value: string | Buffer, leaseId = '0'): Promise<void> {
  const bytes = typeof value === 'string' ? Buffer.from(value) : value;
  await kv.commit([], [{ kind: 'put', key: Buffer.from(key), value: bytes, leaseId }], { signal });
}

export async function del(kv: Kv, key: string): Promise<void> {
  await kv.commit([], [{ kind: 'delete', key: Buffer.from(key) }], { signal });
}

export interface Shown {
  readonly key: string;
  readonly value: string;
  readonly leaseId: string;
  readonly modRevision: bigint;
}

/** Everything whose key begins with the text. */
export async function all(kv: Kv, start: string): Promise<readonly Shown[]> {
  const from = Buffer.from(start);
  const end = Buffer.concat([from.subarray(0, -1), Buffer.from([(from.at(-1) ?? 0) + 1])]);
  const { entries } = await kv.list({ start: from, end }, { signal });
  return entries.map(entry => ({ ...entry, key: entry.key.toString(), value: entry.value.toString() }));
}

/** Waits for a condition; how long it took in ms. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, ms = 10_000): Promise<number> {
  const begin = performance.now();
  while (!(await condition())) {
    if (performance.now() - begin > ms) throw new Error(`not within ${ms} ms: ${what}`);
    await delay(5);
  }
  return performance.now() - begin;
}

/** The store with another `commit`. */
export function withCommit(kv: Kv, commit: Kv['commit']): Kv {
  return new Proxy(kv, {
    get(target, name) {
      const member: unknown = name === 'commit' ? commit : Reflect.get(target, name, target);
      return typeof member === 'function' && name !== 'commit' ? member.bind(target) : member;
    },
  });
}
