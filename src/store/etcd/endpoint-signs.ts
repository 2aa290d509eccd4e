/** What each endpoint did at the last call that went to it. Nothing is asked for it: the calls tell as they go. */
import type { Clock } from '../../lib/clock.js';
import type { EndpointSign } from '../store.js';
import type { EtcdErrorKind } from './errors.js';

interface Sign extends Pick<EndpointSign, 'state' | 'reason'> {
  readonly atMs: number;
}

const unknown: Sign = { state: 'unknown', reason: null, atMs: -Infinity };
/** A refusal is told in full by the problem of the store; beside the endpoint stands its beginning. */
const maxReason = 200;

/** Answers that refuse this host, or everything that it has to write. */
const refusals: ReadonlySet<EtcdErrorKind> = new Set(['denied', 'login-needed', 'no-space']);

export class EndpointSigns {
  /** CLOCK_BOOTTIME milliseconds of the last answer of any endpoint that was no refusal. */
  answeredMs: number | undefined;
  readonly #clock: Clock;
  readonly #signs: Map<string, Sign>;

  constructor(endpoints: readonly string[], clock: Clock) {
    this.#clock = clock;
    this.#signs = new Map(endpoints.map(endpoint => [endpoint, unknown]));
  }

  get current(): readonly EndpointSign[] {
    return [...this.#signs].map(([url, { state, reason }]) => ({ url, state, reason }));
  }

  /** Whether an endpoint that was asked has not answered as it should. */
  get anyFails(): boolean {
    return [...this.#signs.values()].some(({ state }) => state === 'silent' || state === 'refused');
  }

  answered(endpoint: string): void {
    this.answeredMs = this.#clock.now();
    this.#set(endpoint, 'answers', null);
  }

  failed(endpoint: string, kind: EtcdErrorKind, reason: string): void {
    if (kind === 'token') return;
    if (kind === 'transport') this.#set(endpoint, 'silent', reason);
    else if (refusals.has(kind)) this.#set(endpoint, 'refused', reason);
    else this.answered(endpoint);
  }

  /** Returns the endpoints that no call went to in the last milliseconds. */
  idle(forMs: number): readonly string[] {
    const sinceMs = this.#clock.now() - forMs;
    return [...this.#signs].flatMap(([endpoint, { atMs }]) => (atMs < sinceMs ? [endpoint] : []));
  }

  #set(endpoint: string, state: Sign['state'], reason: string | null): void {
    this.#signs.set(endpoint, {
      state,
      reason: reason === null ? null : reason.slice(0, maxReason),
      atMs: this.#clock.now(),
    });
  }
}
