/** What an operator does to leases, and what their living owners make of it, whatever the store is. */
import { describe, expect, it } from 'vitest';
import { formatPrefix, parseIpv4, parsePrefix } from '../../src/model/ip.js';
import { readTimedLeases } from '../../src/store/operator.js';
import { releaseNode } from '../../src/store/release.js';
import { reserve, type Holder, type ReserveResult } from '../../src/store/reservation.js';
import { releaseReservation, type ReleaseResult } from '../../src/store/reservation.js';
import type { OwnLease } from '../../src/store/store.js';
import { useStores, type Bed } from '../support/store-bed.js';
import { all, before, del, networkOf, nodeOf, prefix, put, requestOf, udp, until } from '../support/store.js';
import { withCommit, type Shown } from '../support/store.js';

const key = (subnet: string): string => `${prefix}/subnets/${subnet}`;
const tombstoneKey = (subnet: string): string => `${prefix}/held/${subnet}`;
const flannel = (publicIp: string): string => `{"PublicIP":"${publicIp}","PublicIPv6":null}`;
const node = (number: number): Holder => ({ kind: 'node', nodeId: `node-${number}` });
const address = (text: string): Holder => ({ kind: 'address', publicIp: parseIpv4(text) });
const seven = '10.5.7.0/24';

export function reservationContract(name: string, make: () => Promise<Bed>): void {
  describe(`reservations on ${name}`, () => {
    const stores = useStores(make);
    const keep = async (holder: Holder, subnet?: string, network = networkOf()): Promise<ReserveResult> =>
      reserve(
        stores().tool,
        { network, subnet: subnet === undefined ? undefined : parsePrefix(subnet), holder, backend: udp },
        stores().life.signal,
      );
    const release = async (subnet: string, force = false): Promise<ReleaseResult> =>
      releaseReservation(stores().tool, parsePrefix(subnet), force, stores().life.signal);
    const entries = async (): Promise<readonly Shown[]> => all(stores().kv, `${prefix}/`);
    const reasonOf = (result: ReserveResult | ReleaseResult): string =>
      result.kind === 'refused' ? `${result.reason}; ${result.next}` : result.kind;
    const acquireAt = async (number: number, subnet = seven): Promise<OwnLease> =>
      stores().acquire(requestOf(nodeOf(number), { previous: [before(subnet)] }));

    it('a lease becomes one under its owner, and a lease again, and the owner is never without', async () => {
      const lease = await acquireAt(1);
      const { createRevision } = lease.lease;
      const states: string[] = [];
      lease.onChange(() => states.push(lease.status));
      expect(await keep(node(1))).toMatchObject({ kind: 'reserved', before: 'leased' });
      await until('reserved', () => lease.deadlineMs === Infinity);
      await until('for ever', async () => (await entries()).every(({ leaseId }) => leaseId === '0'));
      expect(await keep(node(1), seven)).toMatchObject({ kind: 'reserved', before: 'reserved' });
      expect(await release(seven)).toEqual({ kind: 'leased', nodeId: 'node-1' });
      await until('a lease again', () => lease.deadlineMs < Infinity);
      expect((await entries()).map(({ leaseId }) => leaseId)).not.toContain('0');
      expect(new Set(states)).toEqual(new Set(['held']));
      expect(lease.lease.createRevision).toBe(createRevision);
      expect(lease.lost.aborted).toBe(false);
    });

    it('stays one over ten restarts', async () => {
      await (await acquireAt(1)).close();
      await keep(node(1));
      for (let start = 0; start < 10; start++) {
        const lease = await stores().acquire(requestOf(nodeOf(1, { bootId: `boot-${start}` })));
        expect(lease).toMatchObject({ status: 'held', deadlineMs: Infinity, lease: { leaseId: '0' } });
        await lease.close();
        expect((await entries()).map(entry => [entry.key, entry.leaseId])).toEqual([
          [tombstoneKey('10.5.7.0-24'), '0'],
          [key('10.5.7.0-24'), '0'],
        ]);
      }
    });

    it('for a node id not seen yet stands out of sight, is given to no other, and is taken for ever', async () => {
      const network = networkOf('10.5.0.0/22', { SubnetLen: 24, SubnetMin: '10.5.2.0', SubnetMax: '10.5.2.0' });
      expect(await keep(node(7), undefined, network)).toMatchObject({ kind: 'reserved', before: 'free' });
      expect((await entries()).map(entry => entry.key)).toEqual([tombstoneKey('10.5.2.0-24')]);
      expect((await readTimedLeases(stores().kv, prefix, stores().o())).kept).toMatchObject([
        { nodeId: 'node-7', reserved: true },
      ]);
      const other = requestOf(nodeOf(2), { network });
      await expect(stores().acquire(other, stores().open({ reuseQuarantined: true }))).rejects.toMatchObject({
        code: 'NO_FREE_SUBNET',
        message: expect.stringContaining('1 reserved'),
      });
      const lease = await stores().acquire(requestOf(nodeOf(7), { network }));
      expect(lease).toMatchObject({ status: 'held', deadlineMs: Infinity });
      expect((await entries()).map(({ value, leaseId }) => [value.includes('reserved'), leaseId])).toEqual([
        [false, '0'],
        [false, '0'],
      ]);
    });

    it('for a node goes before the subnet that it had, once that is not leased', async () => {
      await stores().leave(await acquireAt(1));
      await keep(node(1), '10.5.9.0/24');
      expect(formatPrefix((await acquireAt(1)).lease.subnet)).toBe('10.5.9.0/24');
    });

    it("for an address is what flannel would write, and the host there takes it, ours or flannel's", async () => {
      expect(await keep(address('192.0.2.1'), seven)).toMatchObject({ kind: 'reserved', before: 'free' });
      expect(await entries()).toMatchObject([{ key: key('10.5.7.0-24'), value: flannel('192.0.2.1'), leaseId: '0' }]);
      const lease = await stores().acquire(requestOf(nodeOf(1)));
      expect(lease).toMatchObject({ deadlineMs: Infinity, lease: { subnet: parsePrefix(seven) } });
      const { kv, o } = stores();
      await put(kv, key('10.5.8.0-24'), flannel('192.0.2.8'), await kv.grantLease(60, o()));
      expect(await keep(address('192.0.2.8'))).toMatchObject({ kind: 'reserved', before: 'leased' });
      expect((await all(kv, key('10.5.8.0-24')))[0]).toMatchObject({ value: flannel('192.0.2.8'), leaseId: '0' });
    });

    it('is refused with the reason and the next step', async () => {
      await acquireAt(1);
      await put(stores().kv, key('10.5.4.0-23'), flannel('192.0.2.9'));
      await put(stores().kv, tombstoneKey('10.5.8.0-24'), 'node-8');
      await keep(node(3), '10.5.3.0/24');
      const before = await entries();
      const cases: readonly (readonly [Holder, string, RegExp])[] = [
        [node(2), seven, /is held by node node-1 at 192\.0\.2\.1; .*tartan leases/],
        [node(2), '10.5.5.0/24', /overlaps 10\.5\.4\.0\/23, which is held by the host at 192\.0\.2\.9/],
        [node(2), '10.6.1.0/24', /is not a part of the network 10\.5\.0\.0\/16; .*tartan config get/],
        [node(2), '10.5.9.0/25', /wrong length: .* are \/24/],
        [node(2), '10.5.0.0/24', /outside of what is leased, 10\.5\.1\.0 to 10\.5\.255\.0/],
        [node(2), '10.5.8.0/24', /kept for node node-8; .*release --force 10\.5\.8\.0\/24/],
        [node(2), '10.5.3.0/24', /reserved for node node-3; tartan lease release 10\.5\.3\.0\/24/],
        [node(3), '10.5.9.0/24', /node-3 has 10\.5\.3\.0\/24 reserved already.*tartan lease release 10\.5\.3\.0\/24/],
        [node(1), '10.5.9.0/24', /node-1 has 10\.5\.7\.0\/24 leased already.*tartan leave/],
        [address('192.0.2.1'), '10.5.9.0/24', /192\.0\.2\.1 has 10\.5\.7\.0\/24 leased already/],
      ];
      for (const [holder, subnet, reason] of cases) expect(reasonOf(await keep(holder, subnet))).toMatch(reason);
      expect(await entries()).toEqual(before);
    });

    it('keeps what it does not know of a lease byte for byte, whoever rewrites it', async () => {
      const { kv, o, tool, life } = stores();
      const members = String.raw`"later":{"n":1e400,"n":12345678901234567890},"s":"\/\u00e9` + '\xff\xc3\xa9"';
      const text = `{ "PublicIP":"192.0.2.1",${members},\n"nodeId":"no","NodeID":"node-1","bootId":"b","released":0 , "Released":0}`;
      const stored = async (): Promise<readonly [string | undefined, string | undefined]> => {
        const [entry] = (await kv.list(tool.keys.subnets, o())).entries;
        return [entry?.value.toString('latin1'), entry?.leaseId];
      };
      const bytes = Buffer.from(text, 'latin1');
      await put(kv, key('10.5.7.0-24'), bytes, await kv.grantLease(60, o()));
      await put(kv, tombstoneKey('10.5.7.0-24'), 'node-1');
      expect(await keep(node(1))).toMatchObject({ kind: 'reserved', before: 'leased' });
      expect(await stored()).toEqual([text, '0']);
      expect(await release(seven)).toMatchObject({ kind: 'ending' });
      expect(await stored()).toEqual([text, expect.not.stringMatching(/^0$/)]);
      await keep(node(1));
      await releaseNode(tool, 'node-1', life.signal);
      expect(await stored()).toEqual([text.replace('"Released":0', '"Released":true'), '0']);
      expect((await readTimedLeases(kv, prefix, o())).leases).toMatchObject([{ nodeId: 'node-1', released: true }]);
    });

    it('that nobody has used is gone at once', async () => {
      await keep(node(7), seven);
      await keep(address('192.0.2.8'), '10.5.8.0/24');
      expect(await release(seven)).toEqual({ kind: 'free' });
      expect(await release('10.5.8.0/24')).toEqual({ kind: 'free' });
      expect(await entries()).toEqual([]);
    });

    it('of a silent node ends, and the subnet is kept for it; a word that it is gone frees it', async () => {
      await (await acquireAt(1)).close();
      await keep(node(1));
      expect(await release(seven)).toEqual({ kind: 'ending', nodeId: 'node-1', seconds: 60 });
      const times = await Promise.all(
        (await entries()).map(async ({ leaseId }) => stores().kv.timeToLive(leaseId, stores().o())),
      );
      expect(times.map(time => time?.grantedSeconds)).toEqual([28 * 86_400, 60]);
      expect(reasonOf(await release(seven))).toMatch(/ordinary lease of node node-1 .*; .*tartan leave/);
      await del(stores().kv, key('10.5.7.0-24'));
      expect(reasonOf(await release(seven))).toMatch(
        /no reservation: 10\.5\.7\.0\/24 is kept for node node-1; .*--force/,
      );
      expect(await release(seven, true)).toEqual({ kind: 'free' });
      expect(await entries()).toEqual([]);
      expect(reasonOf(await release(seven))).toMatch(/neither leased nor reserved/);
    });

    it('is ended although its owner writes the key between the read and the write', async () => {
      const lease = await acquireAt(1);
      await keep(node(1));
      await until('reserved', () => lease.deadlineMs === Infinity);
      const { tool, life } = stores();
      let races = 0;
      const kv = withCommit(tool.kv, async (...given) => {
        if (races++ < 3) await lease.update({ publicIp: parseIpv4(`198.51.100.${races}`) });
        return tool.kv.commit(...given);
      });
      const ended = await releaseReservation({ ...tool, kv }, parsePrefix(seven), false, life.signal);
      expect(ended).toEqual({ kind: 'leased', nodeId: 'node-1' });
      await until('a lease again', () => lease.deadlineMs < Infinity);
      expect(lease).toMatchObject({ status: 'held', lease: { publicIp: parseIpv4('198.51.100.3') } });
      expect(races).toBe(4);
    });

    it('of a key that changes all the time is refused in the end, and leaves no etcd lease behind', async () => {
      await (await acquireAt(1)).close();
      await keep(node(1));
      const { tool, life, o } = stores();
      const granted: string[] = [];
      const changing = withCommit(tool.kv, async (compares, writes, signal) => {
        granted.push(...writes.flatMap(write => (write.kind === 'put' ? [write.leaseId] : [])));
        const [entry] = await all(tool.kv, key('10.5.7.0-24'));
        await put(tool.kv, key('10.5.7.0-24'), entry?.value ?? '');
        return tool.kv.commit(compares, writes, signal);
      });
      const context = { ...tool, kv: changing, clock: { now: () => 0, sleep: async () => {} } };
      const refused = await releaseReservation(context, parsePrefix(seven), false, life.signal);
      expect(reasonOf(refused)).toBe('10.5.7.0/24 changed meanwhile; run it again');
      expect(granted.length).toBeGreaterThan(5);
      for (const leaseId of granted) expect(await tool.kv.timeToLive(leaseId, o())).toBeUndefined();
    });

    it('of a living node is not ended by force either', async () => {
      const lease = await acquireAt(1);
      await keep(node(1));
      await until('reserved', async () => (await entries()).every(({ leaseId }) => leaseId === '0'));
      expect(reasonOf(await release(seven, true))).toMatch(/in use: node node-1 at 192\.0\.2\.1 answered/);
      expect(lease).toMatchObject({ status: 'held', deadlineMs: Infinity });
    });

    it('a planned leave frees what the node has, lease or tombstone, and leaves it what is reserved', async () => {
      const { kv, tool, life, open } = stores();
      await (await acquireAt(1)).close();
      await put(kv, tombstoneKey('10.5.6.0-24'), 'node-1');
      await put(kv, tombstoneKey('10.5.5.0-24'), 'node-2');
      await acquireAt(3, '10.5.3.0/24');
      const released: boolean[] = [];
      void (async () => {
        for await (const set of open().watch(stores().o()))
          for (const lease of set.leases) if (lease.nodeId === 'node-1') released.push(lease.released);
      })().catch(() => {});
      await until('the first set', () => released.length > 0);
      expect((await releaseNode(tool, 'node-1', life.signal)).map(({ subnet }) => formatPrefix(subnet))).toEqual([
        seven,
        '10.5.6.0/24',
      ]);
      expect(released.at(-1)).toBe(true);
      expect((await entries()).map(entry => entry.key)).toEqual([
        tombstoneKey('10.5.3.0-24'),
        tombstoneKey('10.5.5.0-24'),
        key('10.5.3.0-24'),
      ]);
      await (await acquireAt(1)).close();
      await keep(node(1));
      expect(await releaseNode(tool, 'node-1', life.signal)).toEqual([{ subnet: parsePrefix(seven), reserved: true }]);
      expect(JSON.parse((await all(kv, key('10.5.7.0-24')))[0]?.value ?? '{}')).toMatchObject({ released: true });
      expect(await release(seven)).toEqual({ kind: 'free' });
    });
  });

  describe(`a changed address on ${name}`, () => {
    const stores = useStores(make);
    const elsewhere = { publicIp: parseIpv4('198.51.100.1') };

    it('is published with everything else as it was, and found at the next start', async () => {
      const { kv, acquire, open } = stores();
      const lease = await acquire(requestOf(nodeOf(1), { previous: [before(seven)] }));
      const { createRevision, leaseId } = lease.lease;
      await lease.update(elsewhere);
      expect(lease).toMatchObject({ status: 'held', lease: { ...elsewhere, createRevision, leaseId } });
      const [entry] = await all(kv, key(''));
      expect(entry?.value).toBe('{"PublicIP":"198.51.100.1","PublicIPv6":null,"nodeId":"node-1","bootId":"boot-1"}');
      await lease.update(elsewhere);
      await lease.update({ publicIp: nodeOf(1).publicIp });
      await lease.update(elsewhere);
      await lease.close();
      const again = await open().acquire(requestOf(nodeOf(1, elsewhere)), stores().o());
      expect(again.lease).toEqual(lease.lease);
    });

    it('of a reservation leaves it one', async () => {
      await put(stores().kv, key('10.5.7.0-24'), flannel('192.0.2.1'));
      const lease = await stores().acquire(requestOf(nodeOf(1)));
      await lease.update(elsewhere);
      expect(lease).toMatchObject({ deadlineMs: Infinity, lease: { ...elsewhere, leaseId: '0' } });
    });

    it("is never put over another owner's key", async () => {
      const { kv, acquire, open } = stores();
      const lease = await acquire(requestOf(nodeOf(1), { previous: [before(seven)] }), open({ sweepMs: 3_600_000 }));
      const other = flannel('192.0.2.66');
      await put(kv, key('10.5.7.0-24'), other);
      await expect(lease.update(elsewhere)).rejects.toMatchObject({ code: 'LEASE_LOST' });
      expect((await all(kv, key('10.5.7.0-24')))[0]?.value).toBe(other);
    });

    it('of a lease that is closed is refused', async () => {
      const lease = await stores().acquire(requestOf(nodeOf(1)));
      await lease.close();
      await expect(lease.update(elsewhere)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' });
    });
  });
}
