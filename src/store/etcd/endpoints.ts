/**
 * The endpoints of one cluster, of which one is in use at a time. A failure moves all calls to the next endpoint. A
 * call gets the answer of some endpoint, or an error with the reason of the last one. Each client goes back to the member
 * that it began with, so that members which were restarted one after another share the clients again.
 */
import { messageOf, TartanError } from '../../lib/errors.js';
import { LinkedAbort } from '../../lib/scope.js';
import { adviceFor } from './advice.js';
import { Keys } from '../keys.js';
import { callTimeoutMs, Connection } from './connection.js';
import type { EtcdOptions } from './options.js';
import { NoAnswer, plainMessage, errorKindOf, type EtcdErrorKind } from './errors.js';

export interface CallOptions {
  readonly signal: AbortSignal;
  readonly timeoutMs?: number;
  /** For a write, which must not be sent twice: the first failure of an endpoint ends the call. */
  readonly once?: boolean;
  /** The caller asks for less when the answer is larger than a message may be. */
  readonly maySplit?: boolean;
}

export class Endpoints {
  readonly #options: EtcdOptions;
  #index: number;
  readonly #home: number;
  readonly #homeMs: number;
  #goingHome: NodeJS.Timeout | undefined;
  #live: Connection | undefined;
  #withLogin: boolean;
  /** The last connection failed. */
  #suspect = false;
  readonly #closed = new AbortController();

  /** @param homeMs about the time after which a client tries to go home */
  constructor(options: EtcdOptions, homeMs = 60_000) {
    this.#options = options;
    this.#withLogin = options.username !== undefined;
    // Hosts with the same configuration begin with different members.
    this.#home = Math.floor(Math.random() * options.endpoints.length);
    this.#index = this.#home;
    this.#homeMs = homeMs;
  }

  /**
   * @throws the client's error where it is an answer of etcd (errorKindOf tells which); TartanError STORE_UNAVAILABLE
   * when no endpoint answered
   */
  async call<T>(attempt: (connection: Connection) => Promise<T>, options: CallOptions): Promise<T> {
    let logins = 0;
    for (let tried = 0; ;) {
      const connection = this.connection();
      try {
        const answer = await this.#attempt(connection, attempt, options);
        this.#suspect = false;
        return answer;
      } catch (error) {
        options.signal.throwIfAborted();
        const kind = errorKindOf(error);
        if (logins++ === 0 && this.#loginAgain(kind, connection)) continue;
        if (kind !== 'transport' && kind !== 'token') throw error;
        this.abandon(connection);
        if (options.once || ++tried >= this.#options.endpoints.length) throw await this.#unavailable(connection, error);
      }
    }
  }

  async #attempt<T>(connection: Connection, attempt: (on: Connection) => Promise<T>, o: CallOptions): Promise<T> {
    // The close of a connection ends every call on it.
    const alive = new LinkedAbort(o.signal, this.#closed.signal, connection.closed);
    try {
      return await within(o.timeoutMs ?? callTimeoutMs, alive.signal, async () => {
        await connection.reachable;
        return attempt(connection);
      });
    } finally {
      alive.end();
    }
  }

  connection(): Connection {
    if (this.#closed.signal.aborted) throw new TartanError('STORE_UNAVAILABLE', 'the etcd client is closed');
    const endpoint = this.#options.endpoints[this.#index] ?? '';
    try {
      this.#live ??= new Connection(endpoint, this.#options, this.#withLogin, this.#suspect);
      return this.#live;
    } catch (cause) {
      // The TLS files were valid when the store was opened, so they are being replaced now or were damaged since.
      throw new TartanError('STORE_UNAVAILABLE', `cannot connect to etcd: ${messageOf(cause)}`, { cause });
    }
  }

  /** Closes the connection and moves to the next endpoint, unless another call has done so already. */
  abandon(connection: Connection): void {
    this.#suspect = true;
    if (this.#live === connection) {
      this.#live = undefined;
      this.#index = (this.#index + 1) % this.#options.endpoints.length;
      this.#goHomeLater();
    }
    connection.close();
  }

  /** Closes the connection in use with all calls on it. The next call makes a new one. */
  reconnect(): void {
    const live = this.#live;
    this.#live = undefined;
    live?.close();
  }

  close(): void {
    this.#closed.abort(new TartanError('STORE_UNAVAILABLE', 'the etcd client is closed'));
    clearTimeout(this.#goingHome);
    this.#live?.close();
  }

  #goHomeLater(): void {
    if (this.#index === this.#home || this.#goingHome) return;
    this.#goingHome = setTimeout(() => void this.#goHome(), this.#homeMs * (0.5 + Math.random())).unref();
  }

  /** Moves when the member answers a linearizable read. The calls on the connection in use have time to end. */
  async #goHome(): Promise<void> {
    this.#goingHome = undefined;
    if (this.#closed.signal.aborted || this.#index === this.#home) return;
    if (!(await this.#answersAtHome())) return this.#goHomeLater();
    const former = this.#live;
    this.#index = this.#home;
    this.#live = undefined;
    setTimeout(() => former?.close(), 2 * callTimeoutMs).unref();
  }

  async #answersAtHome(): Promise<boolean> {
    const { endpoints, prefix } = this.#options;
    let probe: Connection | undefined;
    try {
      const connection = new Connection(endpoints[this.#home] ?? '', this.#options, this.#withLogin, true);
      probe = connection;
      const key = new Keys(prefix).config;
      await this.#attempt(connection, ({ etcd }) => etcd.kv.range({ key }), { signal: this.#closed.signal });
      return true;
    } catch (error) {
      return errorKindOf(error) === 'denied';
    } finally {
      probe?.close();
    }
  }

  async #unavailable({ endpoint }: Connection, cause: unknown): Promise<TartanError> {
    const message = plainMessage(cause);
    const advice = await adviceFor(this.#options, endpoint, messageOf(cause));
    return new TartanError('STORE_UNAVAILABLE', `etcd does not answer at ${endpoint} (${message}): ${advice}`, {
      cause,
    });
  }

  /** @returns whether the call may succeed on a new connection with another login */
  #loginAgain(kind: EtcdErrorKind, connection: Connection): boolean {
    if (kind === 'login-unknown') this.#withLogin = false;
    else if (kind === 'login-needed' && this.#options.username !== undefined) this.#withLogin = true;
    else if (kind !== 'token') return false;
    if (this.#live === connection) this.#live = undefined;
    connection.close();
    return true;
  }
}

/** Limits the time of a call: the client's own deadlines do not cover a connection that never opens. */
async function within<T>(timeoutMs: number, signal: AbortSignal, run: () => Promise<T>): Promise<T> {
  signal.throwIfAborted();
  return new Promise<T>((resolve, reject) => {
    const settle = (act: () => void): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      act();
    };
    const onAbort = (): void => settle(() => reject(signal.reason));
    const timer = setTimeout(() => settle(() => reject(new NoAnswer(timeoutMs))), timeoutMs);
    signal.addEventListener('abort', onAbort, { once: true });
    run().then(
      value => settle(() => resolve(value)),
      (error: unknown) => settle(() => reject(error)),
    );
  });
}
