/**
 * LeaseKeepAlive: one stream, one request and one answer for each lease. The package's Lease class is not used: it
 * gives leases up too early.
 */
import { NoAnswer } from './trouble.js';
import type { Connection } from './connection.js';

/** @returns for each lease the seconds granted anew, 0 when it is gone */
export async function keepAliveAll(
  connection: Connection,
  leaseIds: readonly string[],
  timeoutMs: number,
): Promise<readonly number[]> {
  const stream = await connection.etcd.leaseClient.leaseKeepAlive({ deadline: Date.now() + timeoutMs });
  const granted = new Map<string, number>();
  return new Promise<readonly number[]>((resolve, reject) => {
    stream.on('error', reject);
    stream.on('end', () => reject(new NoAnswer(timeoutMs)));
    stream.on('data', ({ ID: id, TTL: seconds }) => {
      granted.set(id, Number(seconds));
      if (granted.size < leaseIds.length) return;
      resolve(leaseIds.map(leaseId => granted.get(leaseId) ?? 0));
      stream.end();
    });
    for (const leaseId of leaseIds) stream.write({ ID: leaseId });
  });
}
