/**
 * One endpoint with one etcd3 client. The client's own retries and circuit breakers are switched off, because they have
 * faults. A connection is used until its first failure and then closed, with its login token.
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import { Etcd3, type IOptions } from 'etcd3';
import { hostAndPort, isPlain, readTlsFiles, type EtcdOptions } from './options.js';

type Policy = NonNullable<NonNullable<IOptions['faultHandling']>['global']>;

/** The deadline of a unary call in milliseconds; it is below 3 s, in which a stuck member must be given up. */
export const callTimeoutMs = 2_500;

/** A policy that makes the call and nothing else: the faults are handled in Endpoints. */
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
  /** Resolves when a call may be made; rejects when the endpoint cannot be reached. */
  readonly reachable: Promise<void>;
  readonly #closed = new AbortController();

  /**
   * @param suspect the last connection failed, so a TCP connect of our own comes first. grpc-js does not give access to
   * the socket of a connect, and an unanswered one stays open for two minutes after its client was closed.
   */
  constructor(endpoint: string, options: EtcdOptions, withLogin: boolean, suspect = false) {
    this.endpoint = endpoint;
    this.reachable = suspect ? connectOnce(endpoint, this.closed) : Promise.resolve();
    // Each call waits for `reachable` and handles its rejection.
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
        // etcd permits a ping every 5 s, but was seen to reject intervals below 10 s.
        'grpc.keepalive_time_ms': 10_000,
        'grpc.keepalive_timeout_ms': 5_000,
        'grpc.keepalive_permit_without_calls': 1,
        'grpc.enable_http_proxy': 0,
        // grpc-js shares TCP connections of clients with equal options, so each client gets a number of its own.
        'grpc.primary_user_agent': `tartan/${++generation}`,
      },
    });
  }

  /** Aborted when the connection is closed, which ends its streams. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  close(): void {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort();
    this.etcd.close();
  }
}

async function connectOnce(endpoint: string, signal: AbortSignal): Promise<void> {
  const socket = connect({ ...hostAndPort(endpoint), signal });
  try {
    await once(socket, 'connect');
  } finally {
    socket.destroy();
  }
}
