/** What grpc-js would print to standard error by itself goes to our log, or nowhere. */
import { setLogger } from '@grpc/grpc-js';
import type { Log } from '../../lib/log.js';
import { inOurWords } from './words.js';

/** It adapts by itself, and the next connection begins as this one did. */
const routine = /excess pings/;

/** The last log given hears the client: grpc-js has one logger for the whole process. */
export function hearLibrary(log: Log): void {
  const hear = (...words: readonly unknown[]): void => {
    const text = words.map(String).join(' ');
    if (routine.test(text)) log.debug('store.pings', 'etcd wants fewer pings on the connection, and gets them');
    else log.warn('store.client', `the etcd client says: ${inOurWords(text)}`);
  };
  setLogger({ error: hear, info: hear, debug: hear });
}
