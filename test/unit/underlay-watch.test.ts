/** When the tunnel moves to another address or MTU, and when it stays. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { UnderlayAddress } from '../../src/model/node.js';
import { watchUnderlay } from '../../src/agent/underlay-watch.js';
import type { HostInterface } from '../../src/host/host.js';
import { silentLog } from '../../src/lib/log.js';
import { TartanError } from '../../src/lib/errors.js';
import { openUnderlay } from '../../src/host/underlay/check.js';
import { formatIpv4, parseIpv4, parsePrefix, prefixAround } from '../../src/model/ip.js';
import { FakeHost } from '../support/fakes.js';

function link(name: string, mtu: number, ...addresses: string[]): HostInterface {
  return {
    index: 2,
    name,
    mtu,
    up: true,
    addresses: addresses.map(text => ({
      address: parseIpv4(text),
      prefix: prefixAround(parseIpv4(text), 24),
      deprecated: false,
      permanent: true,
    })),
  };
}

function underlayAt(name: string, address: string, mtu = 1500): UnderlayAddress {
  return { publicIp: parseIpv4(address), interface: { name, address: parseIpv4(address), mtu } };
}

class ChangingHost extends FakeHost {
  links: readonly HostInterface[] = [];
  override async interfaces(): Promise<readonly HostInterface[]> {
    return this.links;
  }
  become(...links: HostInterface[]): void {
    this.links = links;
    this.ring();
  }
}

let host: ChangingHost;
let current: UnderlayAddress;
let offered: UnderlayAddress | Error;
let refuses: boolean;
let conflict: string | undefined;
const told: string[] = [];
const end = { now: new AbortController() };
let running: Promise<unknown>;

beforeEach(() => {
  vi.useFakeTimers();
  host = new ChangingHost();
  host.links = [link('eth0', 1500, '192.0.2.1')];
  current = underlayAt('eth0', '192.0.2.1');
  offered = new Error('no interface');
  refuses = false;
  conflict = undefined;
  told.length = 0;
  end.now = new AbortController();
  const watch = {
    host,
    clock: { now: () => Date.now(), sleep: (ms: number) => new Promise<void>(done => setTimeout(done, ms)) },
    log: silentLog,
    node: {
      get current() {
        return { id: 'n', bootId: 'b', ...current };
      },
    },
    network: parsePrefix('10.5.0.0/16'),
    peers: () => [],
    underlay: {
      ...openUnderlay(host, { iface: [], ifaceRegex: [], etcd: { endpoints: [] } }, silentLog),
      refresh: async () => {
        if (conflict !== undefined) throw new TartanError('CONFIG_INVALID', conflict);
      },
      choose: async () => {
        if (offered instanceof Error) throw offered;
        return offered;
      },
    },
    move: async (to: UnderlayAddress) => {
      if (refuses) throw new Error('refused');
      told.push(`${formatIpv4(to.interface.address)} ${to.interface.mtu}`);
      current = to;
    },
    onProblem: (problem: string | undefined) => problem !== undefined && told.push(problem),
  };
  running = watchUnderlay(watch, end.now.signal).catch(() => {});
});

afterEach(async () => {
  end.now.abort(new Error('over'));
  await running;
  vi.useRealTimers();
});

const passMs = async (ms: number): Promise<void> => {
  await vi.advanceTimersByTimeAsync(ms);
};

test('sticky: other addresses and other links come and go', async () => {
  offered = underlayAt('eth1', '198.51.100.1');
  host.become(link('eth1', 9000, '198.51.100.1'), link('eth0', 1500, '192.0.2.99', '192.0.2.1'));
  await passMs(60_000);
  host.become(link('eth0', 1500, '192.0.2.1'));
  await passMs(60_000);
  expect(told).toEqual([]);
});

test('another MTU of the same link', async () => {
  host.become(link('eth0', 1400, '192.0.2.1'));
  await passMs(1);
  host.become(link('eth0', 9000, '192.0.2.1'));
  await passMs(1);
  expect(told).toEqual(['192.0.2.1 1400', '192.0.2.1 9000']);
});

test('an address that is away for a moment is no reason to move', async () => {
  await passMs(1);
  offered = underlayAt('eth1', '198.51.100.1');
  host.become(link('eth0', 1500));
  await passMs(100);
  host.become(link('eth0', 1500, '192.0.2.1'));
  await passMs(60_000);
  expect(told).toEqual([]);
});

test('another address in its place, within a second', async () => {
  await passMs(1);
  offered = underlayAt('eth0', '192.0.2.7');
  host.become(link('eth0', 1500, '192.0.2.7'));
  await passMs(1000);
  expect(told).toEqual(['192.0.2.7 1500']);
});

test('no address at all: logged, nothing is changed, and the next one is taken', async () => {
  await passMs(1);
  host.become(link('eth0', 1500));
  await passMs(5000);
  expect(new Set(told)).toEqual(new Set(['underlay_lost: no interface']));
  told.length = 0;
  offered = underlayAt('eth0', '192.0.2.8');
  host.become(link('eth0', 1500, '192.0.2.8'));
  await passMs(1000);
  expect(told).toEqual(['192.0.2.8 1500']);
});

test('a move that fails is tried again', async () => {
  await passMs(1);
  refuses = true;
  host.become(link('eth0', 1400, '192.0.2.1'));
  await passMs(1500);
  refuses = false;
  await passMs(1500);
  expect(told.filter(text => text.startsWith('192'))).toEqual(['192.0.2.1 1400']);
});

test('fault B5: what moves into the network while it runs is a problem, for as long as it lasts', async () => {
  await passMs(1);
  conflict = 'network document: Network 10.5.0.0/16 contains 10.5.9.9, an etcd endpoint (etcd.test)';
  host.become(link('eth0', 1500, '192.0.2.1'));
  await passMs(1);
  expect(told).toEqual([`underlay_conflict: ${conflict}`]);
  conflict = undefined;
  await passMs(1_500);
  told.length = 0;
  await passMs(30_000);
  expect(told).toEqual([]);
});
