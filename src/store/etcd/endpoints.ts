/**
 * The endpoints of one cluster, of which one is in use at a time. A failure moves all calls to the next endpoint. A
 * call gets the answer of some endpoint, or an error with the reason of the last one. Each client goes back to the member
 * that it began with, so that members which were restarted one after another share the clients again.
 */
import { bootClock, type Clock } from '../../lib/clock.js';
import { messageOf, TartanError } from '../../lib/errors.js';
import { LinkedAbort } from '../../lib/scope.js';
import { adviceFor } from './advice.js';
import { Keys } from '../keys.js';
import { callTimeoutMs, Connection } from './connection.js';
import { EndpointSigns } from './endpoint-signs.js';
import type { EtcdOptions } from './options.js';
import { NoAnswer, plainMessage, errorKindOf, type EtcdErrorKind } from './errors.js';

export interface CallOptions {
  readonly signal: AbortSignal;
  readonly timeoutMs?: number;
  /** For a write that must not be done twice: the first failure of an endpoint ends the call. */
  readonly once?: boolean;
  /** The caller asks for less when the answer is larger than a message may be. */
  readonly maySplit?: boolean;
}

export interface EndpointTimes {
  /** About the time after which a client tries to go home. */
  readonly homeMs?: number;
  /** After a failure, and from then on as long as one fails: endpoints that no call goes to are asked so often. */
  readonly firstLookMs?: number;
  readonly lookMs?: number;
  readonly clock?: Clock;
}

/** By the first look the calls have tried what they try. */
const defaultTimes: Required<EndpointTimes> = { homeMs: 60_000, firstLookMs: 4_000, lookMs: 60_000, clock: bootClock };

export class Endpoints {
  readonly #options: EtcdOptions;
  #index: number;
  readonly #home: number;
  readonly #times: Required<EndpointTimes>;
  #goingHome: NodeJS.Timeout | undefined;
  #live: Connection | undefined;
  #withLogin: boolean;
  /** The last connection failed. */
  #suspect = false;
  readonly #closed = new AbortController();
  readonly signs: EndpointSigns;
  #looking: NodeJS.Timeout | undefined;

  constructor(options: EtcdOptions, times: EndpointTimes = {}) {
    this.#options = options;
    this.#times = { ...defaultTimes, ...times };
    this.signs = new EndpointSigns(options.endpoints, this.#times.clock);
    this.#withLogin = options.username !== undefined;
    // Hosts with the same configuration begin with different members.
    this.#home = Math.floor(Math.random() * options.endpoints.length);
    this.#index = this.#home;
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
        this.signs.answered(connection.endpoint);
        return answer;
      } catch (error) {
        options.signal.throwIfAborted();
        const kind = errorKindOf(error);
        // A connection that is given up ends all calls on it: the first of them has told why.
        if (!connection.closed.aborted) this.#failed(connection.endpoint, error);
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
    clearTimeout(this.#looking);
    this.#live?.close();
  }

  #goHomeLater(): void {
    if (this.#index === this.#home || this.#goingHome) return;
    this.#goingHome = setTimeout(() => void this.#goHome(), this.#times.homeMs * (0.5 + Math.random())).unref();
  }

  /** Moves when the member answers a linearizable read. The calls on the connection in use have time to end. */
  async #goHome(): Promise<void> {
    this.#goingHome = undefined;
    if (this.#closed.signal.aborted || this.#index === this.#home) return;
    if (!(await this.#answers(this.#home))) return this.#goHomeLater();
    const former = this.#live;
    this.#index = this.#home;
    this.#live = undefined;
    setTimeout(() => former?.close(), 2 * callTimeoutMs).unref();
  }

  #failed(endpoint: string, error: unknown): void {
    this.signs.failed(endpoint, errorKindOf(error), plainMessage(error));
    if (this.signs.anyFails) this.#lookLater(this.#times.firstLookMs);
  }

  /** At rest nobody asks an endpoint that is not in use; while one fails, people want to know which of them answer. */
  #lookLater(ms: number): void {
    if (this.#looking || this.#options.endpoints.length === 1 || this.#closed.signal.aborted) return;
    this.#looking = setTimeout(() => void this.#look(), ms).unref();
  }

  async #look(): Promise<void> {
    const { endpoints } = this.#options;
    const { lookMs } = this.#times;
    const idle = this.signs.idle(lookMs / 2).map(endpoint => endpoints.indexOf(endpoint));
    await Promise.all(idle.map(async index => index === this.#index || this.#answers(index)));
    this.#looking = undefined;
    if (this.signs.anyFails) this.#lookLater(lookMs);
  }

  async #answers(index: number): Promise<boolean> {
    const { endpoints, prefix } = this.#options;
    const endpoint = endpoints[index] ?? '';
    let probe: Connection | undefined;
    try {
      const connection = new Connection(endpoint, this.#options, this.#withLogin, true);
      probe = connection;
      const key = new Keys(prefix).config;
      await this.#attempt(connection, ({ etcd }) => etcd.kv.range({ key }), { signal: this.#closed.signal });
      this.signs.answered(endpoint);
      return true;
    } catch (error) {
      if (!this.#closed.signal.aborted) this.signs.failed(endpoint, errorKindOf(error), plainMessage(error));
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
