import { expect, test } from 'vitest';
import { LeaseTable } from '../../src/store/entries.js';
import { Keys } from '../../src/store/keys.js';
import type { KeyEvent, KeyValue } from '../../src/store/kv.js';

const keys = new Keys('/coreos.com/network');

/** Two of twenty are no leases, and a value may be junk. */
function keyValue(number: number, revision: number, junk: boolean): KeyValue {
  const name = number < 2 ? `junk-${number}` : `10.5.${number}.0-24`;
  const value = junk ? 'junk' : `{"PublicIP":"192.0.2.${1 + (revision % 200)}"}`;
  const modRevision = BigInt(revision);
  const [key, bytes] = [Buffer.from(`/coreos.com/network/subnets/${name}`), Buffer.from(value)];
  return { key, value: bytes, createRevision: 1n, modRevision, leaseId: '7' };
}

test('fault C17: an event changes the list of leases in one place, and it stays what a new list is', () => {
  let state = 7;
  const random = (below: number): number => (state = (state * 48_271) % 2_147_483_647) % below;
  const table = new LeaseTable(keys);
  const entries = new Map<number, KeyValue>();
  let inPlace = 0;
  for (let revision = 2; revision < 300; revision++) {
    const number = random(20);
    const entry = keyValue(number, revision, random(30) === 0);
    const event: KeyEvent =
      random(4) === 0 ? { kind: 'delete', key: entry.key, revision: BigInt(revision) } : { kind: 'put', entry };
    const before = table.snapshot();
    table.apply([event]);
    if (event.kind === 'delete') entries.delete(number);
    else entries.set(number, entry);
    const after = table.snapshot();
    const twin = new LeaseTable(keys);
    twin.replace({ entries: [...entries.values()], revision: BigInt(revision), clusterId: '1' });
    expect(after, `revision ${revision}`).toEqual(twin.snapshot());
    if (after.rejected === before.rejected) inPlace++;
  }
  expect(inPlace).toBeGreaterThan(200);
});
