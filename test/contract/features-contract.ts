/** The features of a lease in the store: written, read by others, changed and withdrawn, whatever the store is. */
import { describe, expect, it } from 'vitest';
import type { Features } from '../../src/model/features.js';
import { parseIpv4 } from '../../src/model/ip.js';
import type { Lease } from '../../src/model/lease.js';
import type { Kv } from '../../src/store/kv.js';
import { reserve } from '../../src/store/reservation.js';
import type { LeaseStore } from '../../src/store/store.js';
import { withdrawFeatures } from '../../src/store/withdraw-features.js';
import { useStores, type Bed } from '../support/store-bed.js';
import { all, before, networkOf, nodeOf, prefix, put, requestOf, udp, until, withCommit } from '../support/store.js';

const seven = '10.5.7.0/24';
const key = `${prefix}/subnets/10.5.7.0-24`;
const plain = '{"PublicIP":"192.0.2.1","PublicIPv6":null,"nodeId":"node-1","bootId":"boot-1"}';
const features: Features = { probe: 1, kernel: { port: 4790, vni: 1 }, backends: { vxlan: { VNI: 1 } } };
const withFeatures = plain.replace(
  /}$/,
  ',"features":{"probe":1,"kernel":{"port":4790,"vni":1},"backends":{"vxlan":{"VNI":1}}}}',
);

export function featuresContract(name: string, make: () => Promise<Bed>): void {
  describe(`features on ${name}`, () => {
    const stores = useStores(make);
    const request = requestOf(nodeOf(1), { previous: [before(seven)], features });
    const now = async () => (await all(stores().kv, key))[0];
    const readBack = async (store: LeaseStore): Promise<Lease | undefined> => {
      for await (const set of store.watch(stores().o())) return set.leases[0];
      return undefined;
    };

    it('are written with the lease, and another host reads them', async () => {
      const lease = await stores().acquire(request);
      expect(await now()).toMatchObject({ value: withFeatures });
      expect(lease.lease.features).toEqual(features);
      expect(await readBack(stores().open())).toMatchObject({ features, text: withFeatures });
    });

    it('are changed while the lease is held, by a guarded write, and survive all that the keeper puts right', async () => {
      const { kv, o } = stores();
      const lease = await stores().acquire(request);
      const { createRevision, leaseId } = lease.lease;
      await lease.update({ features: { inner6: 1 } });
      const inner6 = plain.replace(/}$/, ',"features":{"inner6":1}}');
      expect(await now()).toMatchObject({ value: inner6, leaseId });
      expect(lease).toMatchObject({ status: 'held', lease: { createRevision, features: { inner6: 1 } } });
      await lease.update({ publicIp: parseIpv4('198.51.100.1') });
      const moved = inner6.replace('192.0.2.1', '198.51.100.1');
      expect((await now())?.value).toBe(moved);
      await put(kv, key, plain, leaseId);
      await until('put right', async () => (await now())?.value === moved);
      await kv.revokeLease(leaseId, o());
      await until('made again', async () => (await now())?.value === moved);
      await lease.update({ features: {} });
      expect((await now())?.value).toBe(plain.replace('192.0.2.1', '198.51.100.1'));
    });

    it("are never put over another owner's key", async () => {
      const lease = await stores().acquire(request, stores().open({ sweepMs: 3_600_000 }));
      const other = '{"PublicIP":"192.0.2.66","features":{"inner6":1}}';
      await put(stores().kv, key, other);
      await expect(lease.update({ features: { probe: 1 } })).rejects.toMatchObject({ code: 'LEASE_LOST' });
      expect((await now())?.value).toBe(other);
    });

    it('of an earlier start are put right by the next, and stay with a reservation', async () => {
      await (await stores().acquire(request)).close();
      await (await stores().acquire({ ...request, features: {} })).close();
      expect((await now())?.value).toBe(plain);
      const lease = await stores().acquire(request);
      const holder = { kind: 'node', nodeId: 'node-1' } as const;
      const { tool, life } = stores();
      await reserve(tool, { network: networkOf(), subnet: undefined, holder, backend: udp }, life.signal);
      await until('reserved', () => lease.deadlineMs === Infinity);
      expect(await now()).toMatchObject({ value: withFeatures, leaseId: '0' });
    });

    it('are withdrawn with nothing else changed, once, from the leases of the node alone', async () => {
      const { tool, life, kv } = stores();
      const lease = await stores().acquire(request);
      await lease.close();
      await (await stores().acquire(requestOf(nodeOf(2), { features }))).close();
      const { leaseId } = lease.lease;
      await put(kv, key, withFeatures.replace('{', '{"later" : 1e400,"features":0,"later":2,'), leaseId);
      const { subnet } = lease.lease;
      expect(await withdrawFeatures(tool, 'node-1', life.signal)).toEqual([{ subnet, withdrawn: true, features }]);
      const left = await now();
      expect(left).toMatchObject({ value: plain.replace('{', '{"later" : 1e400,"later":2,'), leaseId });
      expect(await withdrawFeatures(tool, 'node-1', life.signal)).toEqual([{ subnet, withdrawn: false, features: {} }]);
      expect(await now()).toEqual(left);
      expect(await withdrawFeatures(tool, 'node-3', life.signal)).toEqual([]);
      const values = (await all(kv, `${prefix}/subnets/`)).map(({ value }) => value);
      expect(values.filter(value => value.includes('"features"'))).toHaveLength(1);
    });

    it('are withdrawn from what the lease says by then, when it changes between the read and the write', async () => {
      const { tool, life, kv } = stores();
      const lease = await stores().acquire(request);
      await lease.close();
      const { subnet, leaseId } = lease.lease;
      let races = 0;
      const commit: Kv['commit'] = async (...given) => {
        if (races++ < 3) await put(kv, key, withFeatures.replace(/}$/, `,"race":${races}}`), leaseId);
        return tool.kv.commit(...given);
      };
      const racing = { ...tool, kv: withCommit(tool.kv, commit) };
      expect(await withdrawFeatures(racing, 'node-1', life.signal)).toEqual([{ subnet, withdrawn: true, features }]);
      expect((await now())?.value).toBe(plain.replace(/}$/, ',"race":3}'));
    });
  });
}
