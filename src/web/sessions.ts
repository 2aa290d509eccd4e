/** Browsers that gave the token once: each has a random session id in a cookie, of which only the digest is kept here. */
import { createHash, randomBytes } from 'node:crypto';

const lifeMs = 12 * 3_600_000;
/** The oldest session makes room. */
const most = 64;

export class Sessions {
  readonly #nowMs: () => number;
  readonly #cookie: string;
  readonly #secure: boolean;
  /** The end of each, by digest. */
  readonly #ends = new Map<string, number>();

  /** @param secure the listener has TLS: the cookie never leaves without */
  constructor(secure: boolean, nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs;
    this.#secure = secure;
    // RFC 6265bis: a browser takes a __Host- cookie only as Secure and for this host alone.
    this.#cookie = secure ? '__Host-tartan' : 'tartan';
  }

  /** @returns the value of a Set-Cookie header */
  open(): string {
    const id = randomBytes(32).toString('base64url');
    const [oldest] = this.#ends.keys();
    if (this.#ends.size >= most && oldest !== undefined) this.#ends.delete(oldest);
    this.#ends.set(digestOf(id), this.#nowMs() + lifeMs);
    const secure = this.#secure ? '; Secure' : '';
    return `${this.#cookie}=${id}; Path=/; Max-Age=${lifeMs / 1000}; HttpOnly; SameSite=Strict${secure}`;
  }

  /** @param header the Cookie header */
  has(header: string | undefined): boolean {
    const pairs = (header ?? '').split(';').map(pair => pair.trim());
    const id = pairs.find(pair => pair.startsWith(`${this.#cookie}=`))?.slice(this.#cookie.length + 1);
    if (id === undefined) return false;
    const end = this.#ends.get(digestOf(id));
    return end !== undefined && this.#nowMs() < end;
  }
}

function digestOf(id: string): string {
  return createHash('sha256').update(id).digest('base64');
}
