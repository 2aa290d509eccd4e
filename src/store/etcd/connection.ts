/**
 * One endpoint, one etcd3 client. The client's own retries and circuit breakers are switched off (its faults are
 * listed in the design notes): a connection is used until the first failure and then thrown away, with its login token.
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import { Etcd3, type IOptions } from 'etcd3';
import { isPlain, readTlsFiles, type EtcdOptions } from './options.js';

type Policy = NonNullable<NonNullable<IOptions['faultHandling']>['global']>;

/** Answers of unary calls, in ms; below the 3 s in which a stuck member must be left. */
export const callTimeoutMs = 2_500;

/** Does nothing but call: faults are ours to handle. */
const noFaultHandling: Policy = {
  _altReturn: undefined as never,
  onSuccess: () => ({ dispose() {} }),
  onFailure: () => ({ dispose() {} }),
  execute: async (call, signal = new AbortController().signal) => call({ signal }),
};

let generation = 0;

export class Connection {
  readonly endpoint: string;
  readonly etcd: Etcd3;
  /** To be waited for before the first call. Rejects when there was no way to the endpoint. */
  readonly reachable: Promise<void>;
  readonly #closed = new AbortController();

  /**
   * @param suspect the last one was left: whether there is a way is found out first. grpc-js gives nobody the socket of
   * an attempt to connect, and one that nobody answers stays open for two minutes after its client was closed.
   */
  constructor(endpoint: string, options: EtcdOptions, withLogin: boolean, suspect = false) {
    this.endpoint = endpoint;
    this.reachable = suspect ? reach(endpoint, this.closed) : Promise.resolve();
    // Whoever has a call to make waits for it.
    this.reachable.catch(() => {});
    const { username, password } = options;
    const tls = isPlain(endpoint) ? undefined : readTlsFiles(options);
    this.etcd = new Etcd3({
      hosts: endpoint,
      ...(tls ? { credentials: tls } : {}),
      ...(withLogin && username !== undefined && password !== undefined ? { auth: { username, password } } : {}),
      faultHandling: { host: () => noFaultHandling, global: noFaultHandling },
      defaultCallOptions: call => (call.isStream ? {} : { deadline: Date.now() + callTimeoutMs }),
      grpcOptions: {
        // etcd allows a ping each 5 s; below 10 s it has been seen to object.
        'grpc.keepalive_time_ms': 10_000,
        'grpc.keepalive_timeout_ms': 5_000,
        'grpc.keepalive_permit_without_calls': 1,
        'grpc.enable_http_proxy': 0,
        // grpc-js shares TCP connections of equal options: a number of its own gives a new client a new connection.
        'grpc.primary_user_agent': `tartan/${++generation}`,
      },
    });
  }

  /** Aborted when the connection is thrown away: its streams end with it. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  close(): void {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort();
    this.etcd.close();
  }
}

async function reach(endpoint: string, signal: AbortSignal): Promise<void> {
  const { protocol, hostname, port } = new URL(endpoint);
  const host = hostname.replace(/^\[|\]$/g, '');
  const options = { host, port: Number(port || (protocol === 'https:' ? 443 : 80)), signal };
  const socket = connect(options);
  try {
    await once(socket, 'connect');
  } finally {
    socket.destroy();
  }
}
