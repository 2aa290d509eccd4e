/** What every lease store promises, whatever is below it. The inner port plays the other hosts and the operator. */
import { beforeEach, describe, expect, it } from 'vitest';
import { formatPrefix, parseIpv4, parsePrefix } from '../../src/model/ip.js';
import type { LeaseSet } from '../../src/model/lease.js';
import { releaseReservation } from '../../src/store/reservation.js';
import { getNetworkText, readTimedLeases, putNetworkText } from '../../src/store/operator.js';
import type { Kv } from '../../src/store/kv.js';
import type { LeaseStoreOptions } from '../../src/store/leases.js';
import type { LeaseRequest, LeaseStore } from '../../src/store/store.js';
import { useStores, type Bed } from '../support/store-bed.js';
import { all, before, del, networkOf, nodeOf, prefix, put, requestOf, until } from '../support/store.js';

const key = (subnet: string): string => `${prefix}/subnets/${subnet}`;
const tombstoneKey = (subnet: string): string => `${prefix}/held/${subnet}`;
const flannel = (publicIp: string): string => `{"PublicIP":"${publicIp}","PublicIPv6":null}`;

export function leaseStoreContract(name: string, make: () => Promise<Bed>): void {
  describe(`lease store on ${name}`, () => {
    const stores = useStores(make);
    let kv: Kv;
    let life: AbortController;
    beforeEach(() => {
      ({ kv, life } = stores());
    });
    const open = (more: Partial<LeaseStoreOptions> = {}): LeaseStore => stores().open(more);
    const o = (): { signal: AbortSignal } => stores().o();
    const acquire = async (want: LeaseRequest, store?: LeaseStore) => stores().acquire(want, store);
    const subnetOf = async (want: LeaseRequest): Promise<string> => {
      const lease = await acquire(want);
      const subnet = formatPrefix(lease.lease.subnet);
      await lease.close();
      return subnet;
    };

    describe('network document', () => {
      it('names the key and a command while there is none', async () => {
        await expect(open().network(o())).rejects.toMatchObject({
          code: 'CONFIG_INVALID',
          message: expect.stringMatching(/\/coreos\.com\/network\/config.*etcdctl put/),
        });
      });

      it('is read as written', async () => {
        await putNetworkText(kv, prefix, '{"Network":"10.9.0.0/16"}', o());
        expect(formatPrefix((await open().network(o())).network)).toBe('10.9.0.0/16');
        expect(await getNetworkText(kv, prefix, o())).toBe('{"Network":"10.9.0.0/16"}');
      });
    });

    describe('acquire', () => {
      it('writes the lease as flannel would, with our ids, and the quarantine key beside it', async () => {
        const lease = await acquire(requestOf(nodeOf(1), { previous: [before('10.5.7.0/24')] }));
        expect(lease.status).toBe('held');
        const entries = await all(kv, prefix);
        expect(entries.map(entry => [entry.key, entry.value])).toEqual([
          [tombstoneKey('10.5.7.0-24'), 'node-1'],
          [key('10.5.7.0-24'), '{"PublicIP":"192.0.2.1","PublicIPv6":null,"nodeId":"node-1","bootId":"boot-1"}'],
        ]);
        const times = await Promise.all(entries.map(({ leaseId }) => kv.timeToLive(leaseId, o())));
        expect(times.map(time => time?.grantedSeconds)).toEqual([4 * 7 * 60, 60]);
        expect(lease.lease).toMatchObject({ leaseId: entries[1]?.leaseId, revision: entries[1]?.modRevision });
      });

      it('keeps the subnet over restarts without writing', async () => {
        const want = requestOf(nodeOf(1));
        const first = await acquire(want);
        await first.close();
        const again = await acquire(want);
        expect(again.lease).toEqual(first.lease);
      });

      it('prefers state file, own entry, subnet.env, own former subnet, in that order', async () => {
        const env = before('10.5.9.0/24', 'subnet-env');
        expect(await subnetOf(requestOf(nodeOf(1), { previous: [env] }))).toBe('10.5.9.0/24');
        expect(await subnetOf(requestOf(nodeOf(1), { previous: [before('10.5.8.0/24', 'subnet-env')] }))).toBe(
          '10.5.9.0/24',
        );
        expect(await subnetOf(requestOf(nodeOf(1), { previous: [before('10.5.6.0/24'), env] }))).toBe('10.5.6.0/24');
        expect((await all(kv, key(''))).map(entry => entry.key)).toEqual([key('10.5.6.0-24')]);
        await del(kv, key('10.5.6.0-24'));
        expect(await subnetOf(requestOf(nodeOf(1)))).toBe('10.5.6.0/24');
      });

      it('gives back an own lease that no longer fits the network', async () => {
        await subnetOf(requestOf(nodeOf(1), { network: networkOf('10.5.0.0/16', { SubnetLen: 26 }) }));
        const subnet = await subnetOf(requestOf(nodeOf(1)));
        expect(subnet).toMatch(/\/24$/);
        expect((await all(kv, key(''))).length).toBe(1);
        expect((await all(kv, tombstoneKey(''))).length).toBe(1);
      });

      it("adopts flannel's entry with our address and leaves one of another address", async () => {
        await put(kv, key('10.5.3.0-24'), flannel('192.0.2.3'));
        await put(kv, key('10.5.4.0-24'), flannel('192.0.2.4'));
        expect(await subnetOf(requestOf(nodeOf(4)))).toBe('10.5.4.0/24');
        expect((await all(kv, key('10.5.3.0-24')))[0]?.value).toBe(flannel('192.0.2.3'));
      });

      it("fault F11: a dual-stack key of flannel is a peer for its IPv4 part, is taken, and is nobody's own", async () => {
        const network = networkOf('10.5.0.0/22', { SubnetLen: 24 });
        const dual = (address: string): string =>
          `{"PublicIP":"${address}","PublicIPv6":"2001:db8::9","BackendType":"udp"}`;
        await put(kv, key('10.5.1.0-24&fd00::-64'), dual('192.0.2.9'));
        // One that flannel has written for our own address: it is neither adopted nor removed.
        await put(kv, key('10.5.2.0-24&fd00:0:0:1::-64'), dual('192.0.2.1'));
        const store = open();
        expect(await subnetOf(requestOf(nodeOf(1), { network }))).toBe('10.5.3.0/24');
        const sets = store.watch(o())[Symbol.asyncIterator]();
        const set = (await sets.next()).value as LeaseSet;
        expect(set.leases.map(({ subnet }) => formatPrefix(subnet)).sort()).toEqual([
          '10.5.1.0/24',
          '10.5.2.0/24',
          '10.5.3.0/24',
        ]);
        await sets.return?.();
        expect(await all(kv, key(''))).toHaveLength(3);
      });

      it('avoids whatever overlaps: other lengths, junk values, dual-stack keys', async () => {
        const network = networkOf('10.5.0.0/21', { SubnetLen: 24 });
        await put(kv, key('10.5.2.0-23'), flannel('192.0.2.9'));
        await put(kv, key('10.5.4.64-26'), 'junk');
        await put(kv, key('10.5.5.0-24&fd42:42:0:2c::-64'), flannel('192.0.2.9'));
        await put(kv, key('10.0.0.0-8'), 'covers all: no lease of this network');
        const subnets = [
          await subnetOf(requestOf(nodeOf(1), { network })),
          await subnetOf(requestOf(nodeOf(2), { network })),
        ];
        expect(subnets).toHaveLength(2);
        subnets.push(await subnetOf(requestOf(nodeOf(3), { network })));
        expect(subnets.sort()).toEqual(['10.5.1.0/24', '10.5.6.0/24', '10.5.7.0/24']);
        await expect(acquire(requestOf(nodeOf(4), { network }))).rejects.toMatchObject({ code: 'NO_FREE_SUBNET' });
      });

      it('keeps the subnet of a vanished node for it, unless told otherwise', async () => {
        const network = networkOf('10.5.0.0/22', { SubnetLen: 24, SubnetMin: '10.5.2.0', SubnetMax: '10.5.2.0' });
        await subnetOf(requestOf(nodeOf(1), { network }));
        await del(kv, key('10.5.2.0-24'));
        const other = requestOf(nodeOf(2), { network });
        await expect(acquire(other)).rejects.toMatchObject({
          code: 'NO_FREE_SUBNET',
          message: expect.stringContaining('--reuse-quarantined'),
        });
        const taker = await acquire(other, open({ reuseQuarantined: true }));
        expect(formatPrefix(taker.lease.subnet)).toBe('10.5.2.0/24');
        expect((await all(kv, tombstoneKey('')))[0]?.value).toBe('node-2');
      });

      it('gives all of many hosts a subnet when there are exactly enough', async () => {
        const network = networkOf('10.5.0.0/24', { SubnetLen: 28 });
        const hosts = Array.from({ length: 15 }, (_, index) => requestOf(nodeOf(index + 1), { network }));
        const leases = await Promise.all(hosts.map(async want => acquire(want)));
        expect(new Set(leases.map(({ lease }) => lease.subnet.base)).size).toBe(15);
        await expect(acquire(requestOf(nodeOf(99), { network }))).rejects.toMatchObject({ code: 'NO_FREE_SUBNET' });
      });
    });

    describe('two hosts with one identity or address', () => {
      it('refuses the second with the same public address and names the first', async () => {
        await acquire(requestOf(nodeOf(1)));
        await expect(acquire(requestOf(nodeOf(2, { publicIp: nodeOf(1).publicIp })))).rejects.toMatchObject({
          code: 'DUPLICATE_NODE',
          message: expect.stringMatching(/node-1 at 192\.0\.2\.1 with subnet 10\.5\./),
        });
        expect((await all(kv, key(''))).length).toBe(1);
      });

      it('fault C10: a later boot of one machine takes its lease over at once, and an earlier one that lives is LOST', async () => {
        const [hardware, ttlSeconds] = ['a'.repeat(32), 86_400];
        const first = nodeOf(1, { bootId: 'kernel-1.77', hardware });
        const earlier = await acquire(requestOf(first, { ttlSeconds }));
        const copies = { ...nodeOf(2), id: first.id, bootId: 'kernel-2.77' };
        const refused = [
          { ...copies, bootId: 'kernel-1.78', hardware },
          { ...copies, hardware: 'b'.repeat(32) },
          copies,
        ];
        for (const node of refused)
          await expect(acquire(requestOf(node, { ttlSeconds }))).rejects.toMatchObject({ code: 'DUPLICATE_NODE' });
        expect(earlier.lost.aborted).toBe(false);
        const later = await acquire(requestOf({ ...copies, hardware }, { ttlSeconds }));
        expect(later.lease.subnet).toEqual(earlier.lease.subnet);
        expect((await all(kv, key('')))[0]?.value).toContain(`"hardware":"${hardware}"`);
        expect(await until('lost', () => earlier.lost.aborted)).toBeLessThan(1_000);
        expect((await all(kv, key(''))).length).toBe(1);
      });

      it('refuses a copied disk: same node id, other boot, other address', async () => {
        await acquire(requestOf(nodeOf(1)));
        await expect(acquire(requestOf(nodeOf(2, { id: 'node-1' })))).rejects.toMatchObject({
          code: 'DUPLICATE_NODE',
          message: expect.stringMatching(/node id.*192\.0\.2\.1.*tartan lease release --force 10\.5\./),
        });
      });

      it('adopts after a reboot: same node id and address, other boot', async () => {
        const first = await acquire(requestOf(nodeOf(1)));
        await first.close();
        const again = await acquire(requestOf(nodeOf(1, { bootId: 'boot-later' })));
        expect(again.lease).toMatchObject({
          subnet: first.lease.subnet,
          bootId: 'boot-later',
          leaseId: first.lease.leaseId,
        });
      });

      it('takes a reservation of another node with our address for a conflict, and ignores one that said goodbye', async () => {
        const entry = { PublicIP: '192.0.2.1', PublicIPv6: null, nodeId: 'node-old' };
        await put(kv, key('10.5.3.0-24'), JSON.stringify({ ...entry, released: true }));
        await stores().leave(await acquire(requestOf(nodeOf(1))));
        await put(kv, key('10.5.3.0-24'), JSON.stringify(entry));
        await expect(acquire(requestOf(nodeOf(1)))).rejects.toMatchObject({ code: 'DUPLICATE_NODE' });
      });
    });

    describe('a host that was made anew', () => {
      it('fault U9: is refused with the command that settles it at once, and that command does', async () => {
        const gone = await acquire(requestOf(nodeOf(1), { ttlSeconds: 86_400 }));
        await gone.close();
        const anew = requestOf(nodeOf(2, { publicIp: nodeOf(1).publicIp }), { ttlSeconds: 86_400 });
        const error = await acquire(anew).then(
          () => '',
          (reason: unknown) => reason,
        );
        const text = /settle it at once: tartan lease release --force (\S+)\./.exec(String(error))?.[1] ?? '';
        expect(parsePrefix(text)).toEqual(gone.lease.subnet);
        await releaseReservation(stores().tool, parsePrefix(text), true, life.signal);
        expect((await acquire(anew)).status).toBe('held');
      });
    });

    describe('an own lease', () => {
      it('is made again within a second when its key is deleted', async () => {
        const lease = await acquire(requestOf(nodeOf(1)));
        const { subnet, createRevision } = lease.lease;
        const name = formatPrefix(subnet).replace('/', '-');
        const states: string[] = [];
        lease.onChange(() => states.push(lease.status));
        await del(kv, key(name));
        const ms = await until('the key is back', async () => (await all(kv, key(name))).length === 1);
        expect(ms).toBeLessThan(1000);
        await until('held', () => lease.status === 'held' && lease.lease.createRevision > createRevision);
        expect(states).toContain('gone');
        expect(lease.lost.aborted).toBe(false);
      });

      it('is made again when its etcd lease is revoked', async () => {
        const lease = await acquire(requestOf(nodeOf(1)));
        const old = lease.lease.leaseId;
        await kv.revokeLease(old, o());
        const ms = await until('held again', () => lease.status === 'held' && lease.lease.leaseId !== old);
        expect(ms).toBeLessThan(1000);
        expect((await all(kv, key('')))[0]?.leaseId).toBe(lease.lease.leaseId);
      });

      it.each([
        ['by another host', flannel('192.0.2.66')],
        ['by junk', 'junk'],
        ['by our copy elsewhere', '{"PublicIP":"192.0.2.9","PublicIPv6":null,"nodeId":"node-1","bootId":"boot-9"}'],
      ])('is lost within a second when its key is overwritten %s, and never put over it', async (_, value) => {
        const lease = await acquire(requestOf(nodeOf(1), { previous: [before('10.5.7.0/24')] }));
        await put(kv, key('10.5.7.0-24'), value);
        expect(await until('lost', () => lease.lost.aborted)).toBeLessThan(1000);
        expect(lease.status).toBe('lost');
        expect(lease.lost.reason).toMatchObject({ code: 'LEASE_LOST' });
        await lease.close();
        expect((await all(kv, key('10.5.7.0-24')))[0]?.value).toBe(value);
      });

      it('is lost when its range was taken while it was gone', async () => {
        const lease = await acquire(requestOf(nodeOf(1), { previous: [before('10.5.6.0/24')] }));
        await kv.commit(
          [],
          [
            { kind: 'delete', key: Buffer.from(key('10.5.6.0-24')) },
            {
              kind: 'put',
              key: Buffer.from(key('10.5.6.0-23')),
              value: Buffer.from(flannel('192.0.2.9')),
              leaseId: '0',
            },
          ],
          o(),
        );
        await until('lost', () => lease.lost.aborted);
        expect((await all(kv, key(''))).map(entry => entry.key)).toEqual([key('10.5.6.0-23')]);
      });

      it('gets its own value and lease back when flannel rewrote its entry', async () => {
        const lease = await acquire(requestOf(nodeOf(1), { previous: [before('10.5.7.0/24')] }));
        await put(kv, key('10.5.7.0-24'), flannel('192.0.2.1'), await kv.grantLease(60, o()));
        await until('rewritten', async () => (await all(kv, key('10.5.7.0-24')))[0]?.value.includes('node-1') ?? false);
        const [entry] = await all(kv, key('10.5.7.0-24'));
        // The answer to the write may still be under way.
        await until('known', () => lease.lease.leaseId === entry?.leaseId);
        expect(lease.status).toBe('held');
      });

      it('becomes a reservation when an operator takes its lease away', async () => {
        const lease = await acquire(requestOf(nodeOf(1), { previous: [before('10.5.7.0/24')] }));
        const [entry] = await all(kv, key('10.5.7.0-24'));
        await put(kv, key('10.5.7.0-24'), entry?.value ?? '');
        await until('reserved', () => lease.deadlineMs === Infinity);
        expect(lease.status).toBe('held');
        expect((await all(kv, key('10.5.7.0-24')))[0]?.leaseId).toBe('0');
      });

      it('stays a reservation over restarts', async () => {
        await put(kv, key('10.5.7.0-24'), flannel('192.0.2.1'));
        for (let start = 0; start < 5; start++) {
          const lease = await acquire(requestOf(nodeOf(1, { bootId: `boot-${start}` })));
          expect(lease).toMatchObject({ status: 'held', deadlineMs: Infinity });
          await lease.close();
          expect((await all(kv, key('')))[0]).toMatchObject({ key: key('10.5.7.0-24'), leaseId: '0' });
        }
      });

      it('is renewed in time', async () => {
        const lease = await acquire(requestOf(nodeOf(1), { ttlSeconds: 3 }));
        const { renewedAtMs } = lease;
        const { revision } = lease.lease;
        await until('renewed', () => lease.renewedAtMs > renewedAtMs + 2500, 8000);
        expect(lease.status).toBe('held');
        expect((await all(kv, key('')))[0]?.modRevision).toBe(revision);
      });

      it('says goodbye before it leaves, and frees the subnet', async () => {
        const lease = await acquire(requestOf(nodeOf(1)));
        const sets: LeaseSet[] = [];
        const watching = (async () => {
          for await (const set of open().watch(o())) sets.push(set);
        })().catch(() => {});
        await until('first set', () => sets.length > 0);
        await stores().leave(lease);
        await until('empty', () => sets.at(-1)?.leases.length === 0);
        expect(sets.some(set => set.leases[0]?.released)).toBe(true);
        expect(await all(kv, prefix)).toEqual([]);
        expect(await kv.timeToLive(lease.lease.leaseId, o())).toBeUndefined();
        life.abort();
        await watching;
      });

      it('frees the subnet also when its key is gone already', async () => {
        const lease = await acquire(requestOf(nodeOf(1)));
        await lease.close();
        await del(kv, key(formatPrefix(lease.lease.subnet).replace('/', '-')));
        await stores().leave(lease);
        expect(await all(kv, prefix)).toEqual([]);
      });

      it('keeps a reservation when it leaves, marked released', async () => {
        await put(kv, key('10.5.7.0-24'), flannel('192.0.2.1'));
        await stores().leave(await acquire(requestOf(nodeOf(1))));
        const [entry] = await all(kv, key(''));
        expect(entry?.leaseId).toBe('0');
        expect(JSON.parse(entry?.value ?? '{}')).toMatchObject({ released: true });
      });
    });

    describe('watch', () => {
      it('yields whole sets, first the present one', async () => {
        await put(kv, key('10.5.2.0-24'), flannel('192.0.2.2'));
        const iterator = open().watch(o())[Symbol.asyncIterator]();
        expect(shown((await iterator.next()).value)).toEqual(['10.5.2.0/24']);
        await put(kv, key('10.5.3.0-24'), flannel('192.0.2.3'));
        expect(shown((await iterator.next()).value)).toEqual(['10.5.2.0/24', '10.5.3.0/24']);
        await del(kv, key('10.5.2.0-24'));
        expect(shown((await iterator.next()).value)).toEqual(['10.5.3.0/24']);
        await iterator.return?.();
      });

      it('yields an empty set when there is none', async () => {
        const iterator = open().watch(o())[Symbol.asyncIterator]();
        expect((await iterator.next()).value).toMatchObject({ leases: [], rejected: [] });
        await iterator.return?.();
      });

      it('ends by abort only, with the reason', async () => {
        const iterator = open().watch(o())[Symbol.asyncIterator]();
        await iterator.next();
        const next = iterator.next();
        life.abort(new Error('enough'));
        await expect(next).rejects.toThrow('enough');
      });

      it('refuses bad entries alone', async () => {
        await put(kv, key('10.5.2.0-24'), flannel('192.0.2.2'));
        await put(kv, Buffer.concat([Buffer.from(key('10.5.3.0-24')), Buffer.from([0, 0xff])]), flannel('192.0.2.3'));
        await put(kv, key('foo'), 'bar');
        await put(kv, key('10.5.4.0-24'), `{"PublicIP":"192.0.2.4","x":"${'A'.repeat(17_000)}"}`);
        const iterator = open().watch(o())[Symbol.asyncIterator]();
        const set: LeaseSet = (await iterator.next()).value;
        expect(shown(set)).toEqual(['10.5.2.0/24']);
        expect(set.rejected.map(entry => entry.key).sort()).toEqual(['10.5.3.0-24\\x00\\xff', '10.5.4.0-24', 'foo']);
        await iterator.return?.();
      });

      it('costs a few sets for thousands of changes', async () => {
        const sets: LeaseSet[] = [];
        const watching = (async () => {
          for await (const set of open().watch(o())) sets.push(set);
        })().catch(() => {});
        await until('first set', () => sets.length > 0);
        for (let round = 0; round < 20; round++) {
          const writes = Array.from({ length: 100 }, (_, index) => ({
            kind: 'put' as const,
            key: Buffer.from(key(`10.5.${index + 1}.0-24`)),
            value: Buffer.from(flannel(`192.0.3.${round + 1}`)),
            leaseId: '0',
          }));
          await kv.commit([], writes, o());
        }
        await until('the last change', () => sets.at(-1)?.leases[99]?.publicIp === parseIpv4('192.0.3.20'));
        expect(sets.length).toBeLessThanOrEqual(30);
        life.abort();
        await watching;
      });
    });

    it('tells the time left of each lease, none for a reservation', async () => {
      await acquire(requestOf(nodeOf(1), { previous: [before('10.5.7.0/24')] }));
      await put(kv, key('10.5.8.0-24'), flannel('192.0.2.8'));
      await put(kv, key('junk'), 'junk');
      const { leases, rejected } = await readTimedLeases(kv, prefix, o());
      expect(
        leases.map(lease => [formatPrefix(lease.subnet), lease.ttlSeconds === null ? null : lease.ttlSeconds > 50]),
      ).toEqual([
        ['10.5.7.0/24', true],
        ['10.5.8.0/24', null],
      ]);
      expect(rejected.map(entry => entry.key)).toEqual(['junk']);
    });

    it('creates nothing but leases below subnets', async () => {
      const lease = await acquire(requestOf(nodeOf(1)));
      const { revision } = lease.lease;
      await del(kv, key(formatPrefix(lease.lease.subnet).replace('/', '-')));
      await until('made again', () => lease.status === 'held' && lease.lease.revision > revision);
      for (const entry of await all(kv, `${prefix}/subnets`)) expect(entry.key).toMatch(/\/subnets\/10\.5\.\d+\.0-24$/);
      expect((await all(kv, `${prefix}/`)).every(entry => /\/(subnets|held)\/10\.5\.\d+\.0-24$/.test(entry.key))).toBe(
        true,
      );
    });
  });
}

function shown(set: LeaseSet): readonly string[] {
  return set.leases.map(lease => formatPrefix(parsePrefix(formatPrefix(lease.subnet)))).sort();
}
