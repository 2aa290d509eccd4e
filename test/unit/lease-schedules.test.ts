/**
 * The lease logic under random schedules: whatever is paused, lost, cut off, expired or restarted, no subnet has two
 * owners and nobody writes what is another's. TARTAN_SCHEDULES and TARTAN_SEED set how many and where they begin.
 */
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { spliceMember } from '../../src/model/json.js';
import type { KeyValue } from '../../src/store/kv.js';
import { SimulatedHost } from '../support/lease-host.js';
import { seeded, World } from '../support/lease-world.js';
import { networkOf, nodeOf, requestOf } from '../support/store.js';

const schedules = Number(process.env['TARTAN_SCHEDULES'] ?? 200);
const firstSeed = Number(process.env['TARTAN_SEED'] ?? 1);
const ttlSeconds = 10;
const limitMs = 60_000 + schedules * 100;

beforeEach(() => {
  vi.spyOn(Math, 'random');
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** Room for all, some of them with halves; or one subnet too few, so that those left in quarantine are wanted. */
interface Room {
  readonly mixed: boolean;
  readonly subnets: number;
}

function networkFor(index: number, { mixed, subnets }: Room) {
  const length = mixed && index % 2 === 1 ? 25 : 24;
  return networkOf('10.5.0.0/20', { SubnetMin: '10.5.4.0', SubnetMax: `10.5.${3 + subnets}.0`, SubnetLen: length });
}

/** @returns what ends it, and after how many TTLs at most */
type Fault = (world: World, host: SimulatedHost) => { readonly ttls: number; readonly end: () => void } | undefined;

const faults: readonly Fault[] = [
  (_, host) => {
    host.pause();
    return { ttls: 6, end: () => host.resume() };
  },
  (_, host) => {
    host.cut();
    return { ttls: 9, end: () => (host.partitioned = false) };
  },
  (_, host) => {
    // A stopped process cannot be ended in an orderly way, and nothing is different when it is killed.
    if (host.paused) return undefined;
    const stopped = host.stop();
    return { ttls: 3, end: () => void stopped.then(() => host.start()) };
  },
  world => void world.kv.compact(),
  world => void world.kv.breakWatches(),
  (world, host) => {
    // An operator revokes whatever lease this host's key hangs on.
    void ownEntry(world, host).then(own => own && world.kv.revokeLease(own.leaseId, { signal }));
    return undefined;
  },
  (world, host) => {
    // An operator changes what this host's key says.
    void ownEntry(world, host).then(own => {
      if (!own) return undefined;
      const { key, modRevision: revision, leaseId } = own;
      const value = Buffer.from(spliceMember(own.value.toString('latin1'), 'x', world.random()), 'latin1');
      return world.kv.commit([{ kind: 'modified-at', key, revision }], [{ kind: 'put', key, value, leaseId }], {
        signal,
      });
    });
    return undefined;
  },
];

async function ownEntry(world: World, host: SimulatedHost): Promise<KeyValue | undefined> {
  const { entries } = await world.kv.list(everything, { signal });
  return entries.find(({ value }) => value.toString().includes(`"nodeId":"${host.id}"`));
}

const { signal } = new AbortController();
const everything = { start: Buffer.from('/'), end: Buffer.from('0') };

async function runSchedule(seed: number): Promise<readonly string[]> {
  const world = new World(seed);
  const jitter = seeded(seed ^ 0x5eed);
  vi.mocked(Math.random).mockImplementation(jitter);
  const count = 2 + Math.floor(world.random() * 3);
  const room = world.chance(0.5) ? { mixed: world.chance(0.5), subnets: 12 } : { mixed: false, subnets: count - 1 };
  for (let index = 0; index < count; index++) {
    const more = { ttlSeconds, network: networkFor(index, room) };
    world.hosts.push(new SimulatedHost(world, requestOf(nodeOf(index + 1), more)));
  }
  for (const host of world.hosts) host.start();
  await world.pass(world.between(0, 5_000));
  const lasting = new Map<SimulatedHost, { readonly untilMs: number; readonly end: () => void }[]>();
  for (let step = 0; step < 10; step++) {
    const host = world.hosts[Math.floor(world.random() * count)];
    const fault = faults[Math.floor(world.random() * faults.length)];
    // One process is not stopped twice, but its host may be cut off meanwhile.
    const present = (host && lasting.get(host)) ?? [];
    const begun = host && fault && present.length < 1 ? fault(world, host) : undefined;
    if (host && begun)
      lasting.set(host, [
        ...present,
        { untilMs: world.clock.now() + world.between(0, begun.ttls * ttlSeconds * 1000), end: begun.end },
      ]);
    await world.pass(world.between(0, 1.5 * ttlSeconds * 1000));
    for (const [other, active] of lasting) {
      for (const { end } of active.filter(({ untilMs }) => untilMs <= world.clock.now())) end();
      lasting.set(
        other,
        active.filter(({ untilMs }) => untilMs > world.clock.now()),
      );
    }
  }
  for (const { end } of [...lasting.values()].flat()) end();
  await world.pass(12 * ttlSeconds * 1000);
  const allHeld = (): boolean =>
    world.hosts.filter(({ state }) => state === 'held').length >= Math.min(count, room.subnets);
  // The link goes on losing requests: one moment of UNKNOWN is no end.
  for (let look = 0; look < 3 && !allHeld(); look++) await world.pass(ttlSeconds * 1000);
  if (!allHeld()) world.breaks(`in the end: ${world.hosts.map(({ id, state }) => `${id} ${state}`).join(', ')}`);
  await world.close();
  return world.broken;
}

it(
  `${schedules} random schedules of 2 to 4 hosts: no subnet has two owners, no key is written by another`,
  async () => {
    for (let seed = firstSeed; seed < firstSeed + schedules; seed++)
      expect(await runSchedule(seed), `broken with TARTAN_SEED=${seed} TARTAN_SCHEDULES=1`).toEqual([]);
  },
  limitMs,
);
