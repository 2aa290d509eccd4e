/**
 * Watch and LeaseKeepAlive on etcd's raw streams. The package's Watcher is not used, because it loses events when a
 * stream dies early and does not report a compaction. Its Lease class is not used, because it gives leases up too
 * early.
 */
import type { IWatchResponse } from 'etcd3';
import { messageOf } from '../../lib/errors.js';
import { LinkedAbort } from '../../lib/scope.js';
import type { KeyEvent, WatchEnd, WatchRequest } from '../kv.js';
import type { Connection } from './connection.js';
import { NoAnswer } from './errors.js';
import { readEvent } from './wire.js';

/** etcd must confirm the watch within this time; after that HTTP/2 pings supervise the stream. */
const openTimeoutMs = 3_000;

/**
 * Runs one watch. It ends at the first fault or cancel, and the caller lists again.
 * @param signal ends the watch, as the close of the connection does
 */
export async function watchStream(
  connection: Connection,
  request: WatchRequest,
  signal: AbortSignal,
): Promise<WatchEnd> {
  const life = new LinkedAbort(signal, connection.closed);
  const over = life.signal;
  return new Promise<WatchEnd>(resolve => {
    let cancel = (): void => {};
    let ended = false;
    const end = (kind: WatchEnd['kind'], reason: string): void => {
      if (ended) return;
      ended = true;
      clearTimeout(timer);
      over.removeEventListener('abort', onOver);
      life.end();
      cancel();
      resolve({ kind, reason });
    };
    const onOver = (): void => end('broken', 'the connection was given up');
    const timer = setTimeout(() => end('broken', `no watch within ${openTimeoutMs / 1000} s`), openTimeoutMs);
    over.addEventListener('abort', onOver, { once: true });
    if (over.aborted) return onOver();
    connection.etcd.watchClient.watch().then(
      stream => {
        cancel = () => {
          // The package takes the cancel of a writable stream for a fault of the host and closes all its clients. Later
          // calls would get a new connection, and the other watches would stay on one that is given up.
          stream.end();
          stream.cancel();
        };
        // A cancelled stream reports the cancel as an error, which needs a listener.
        stream.on('error', error => end('broken', messageOf(error)));
        stream.on('end', () => end('broken', 'the stream ended'));
        if (ended) return cancel();
        const read = reader(request, end, () => clearTimeout(timer));
        stream.on('data', response => ended || read(response));
        stream.write({
          create_request: {
            key: request.range.start,
            range_end: request.range.end,
            start_revision: String(request.revision),
            fragment: true,
          },
        });
      },
      error => end('broken', messageOf(error)),
    );
  });
}

function reader(
  request: WatchRequest,
  end: (kind: WatchEnd['kind'], reason: string) => void,
  onCreated: () => void,
): (response: IWatchResponse) => void {
  let events: KeyEvent[] = [];
  return response => {
    if (response.canceled) {
      const compacted = response.compact_revision !== '0';
      return end(compacted ? 'compacted' : 'broken', response.cancel_reason || 'the watch was cancelled by etcd');
    }
    if (response.header.cluster_id !== request.clusterId) return end('broken', 'another etcd cluster answers');
    if (response.created && BigInt(response.header.revision) + 1n < request.revision)
      return end('broken', 'etcd is behind what it told before');
    if (response.created) onCreated();
    for (const event of response.events) events.push(readEvent(event));
    // A fragment is a part of one revision or batch, and the listener gets only whole ones.
    if (response.fragment || events.length === 0) return;
    const whole = events;
    events = [];
    request.onEvents(whole);
  };
}

/**
 * Renews leases on one stream, with one request and one response for each lease.
 * @returns for each lease the seconds granted anew, 0 when it is gone
 */
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
