/** LeaseKeepAlive, one request and one answer. The package's Lease class is not used: it gives leases up too early. */
import { NoAnswer } from './trouble.js';
import type { Connection } from './connection.js';

/** @returns seconds granted anew, 0 when the lease is gone */
export async function keepAliveOnce(connection: Connection, leaseId: string, timeoutMs: number): Promise<number> {
  const stream = await connection.etcd.leaseClient.leaseKeepAlive({ deadline: Date.now() + timeoutMs });
  return new Promise<number>((resolve, reject) => {
    stream.on('error', reject);
    stream.on('end', () => reject(new NoAnswer(timeoutMs)));
    stream.on('data', response => {
      resolve(Number(response.TTL));
      stream.end();
    });
    stream.write({ ID: leaseId });
  });
}
