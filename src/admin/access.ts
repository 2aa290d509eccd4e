/**
 * Who may read from a listener that others reach: a token of the operator's, compared in constant time, few wrong ones a
 * minute, and a Host header that names this host. A browser under DNS rebinding sends another.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { statSync } from 'node:fs';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import { TartanError } from '../lib/errors.js';
import { readTextFile } from '../lib/file.js';
import { plainText, type HttpRequest, type HttpResponse } from './limited-http.js';

const tokenPattern = /^[\x21-\x7e]{16,1024}$/;

export class Token {
  readonly #digest: Buffer;

  constructor(text: string) {
    this.#digest = digestOf(text);
  }

  /** Takes the same time for every text of one length: digests are compared, of equal length. */
  matches(text: string): boolean {
    return timingSafeEqual(digestOf(text), this.#digest);
  }
}

function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

export interface TokenReading {
  readonly text: string;
  readonly token: Token;
  readonly notes: readonly string[];
}

/**
 * @param source of the path, for messages, which never show what the file holds
 * @throws TartanError CONFIG_INVALID when the file cannot be read or has no token
 */
export function readToken(path: string, source: string): TokenReading {
  const reading = readTextFile(path);
  const reason = reading.known ? 'there is no such file' : reading.why;
  if (!reading.known || reading.value === undefined)
    throw new TartanError('CONFIG_INVALID', `${source}: ${path} cannot be read (${reason}); ${makeToken(path)}`);
  const text = reading.value.trim();
  if (!tokenPattern.test(text))
    throw new TartanError(
      'CONFIG_INVALID',
      `${source}: ${path} has no token, expected one word of 16 to 1024 characters; ${makeToken(path)}`,
    );
  const mode = statSync(path).mode & 0o777;
  const open = (mode & 0o007) !== 0;
  const note = `${source}: every user of this host can open ${path} (mode ${mode.toString(8)}); chmod 600 ${path}`;
  return { text, token: new Token(text), notes: open ? [note] : [] };
}

function makeToken(path: string): string {
  return `make one with: (umask 077; openssl rand -hex 32 >${path})`;
}

/** Wrong tokens in one minute, of one address and of all. */
export interface TryLimits {
  readonly ofOne: number;
  readonly ofAll: number;
  readonly periodMs: number;
}

const defaultTries: TryLimits = { ofOne: 10, ofAll: 200, periodMs: 60_000 };

export type Guess = 'right' | 'wrong' | 'too-many';

/** Judges tokens. Who was wrong too often is not listened to until the period ends, right or not. */
export class TokenCheck {
  readonly #token: Token;
  readonly #limits: TryLimits;
  readonly #nowMs: () => number;
  #wrong = new Map<string, number>();
  #wrongOfAll = 0;
  #periodEndMs = -Infinity;

  constructor(token: Token, limits: TryLimits = defaultTries, nowMs: () => number = () => performance.now()) {
    this.#token = token;
    this.#limits = limits;
    this.#nowMs = nowMs;
  }

  /** @param remote the address of who tries */
  try(text: string, remote: string): Guess {
    if (this.#nowMs() >= this.#periodEndMs) {
      this.#wrong = new Map();
      this.#wrongOfAll = 0;
      this.#periodEndMs = this.#nowMs() + this.#limits.periodMs;
    }
    const before = this.#wrong.get(remote) ?? 0;
    // At most `ofAll` addresses are remembered.
    if (before >= this.#limits.ofOne || this.#wrongOfAll >= this.#limits.ofAll) return 'too-many';
    if (this.#token.matches(text)) return 'right';
    this.#wrong.set(remote, before + 1);
    this.#wrongOfAll++;
    return 'wrong';
  }
}

/**
 * Refuses a request for a name that is not this host's.
 * @param ownName says of a name whether the certificate has it
 */
export function refuseHost(
  { host }: Pick<HttpRequest, 'host'>,
  ownName: (name: string) => boolean = () => false,
): HttpResponse | undefined {
  return isOwnHost(host, ownName) ? undefined : plainText(421, 'ask by address, or by a name of this host');
}

/** Accepts an address, a name of this host, or no name. A name that foreign DNS resolves to this host is refused. */
function isOwnHost(host: string | undefined, ownName: (name: string) => boolean): boolean {
  if (host === undefined || host === '') return true;
  const name = host
    .replace(/:\d*$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .toLowerCase();
  return isIP(name) !== 0 || name === 'localhost' || name === hostname().toLowerCase() || ownName(name);
}

/** Refuses a request without the token in its Authorization header (RFC 6750). */
export function refuseBearer(request: HttpRequest, check: TokenCheck): HttpResponse | undefined {
  const given = readBearer(request);
  if (given === undefined) return unauthorized('send the token: Authorization: Bearer TOKEN');
  switch (check.try(given, request.remote)) {
    case 'right':
      return undefined;
    case 'wrong':
      return unauthorized('this is not the token');
    case 'too-many':
      return tooManyTries();
  }
}

/** Returns the token of the Authorization header; undefined where there is none. */
export function readBearer({ headers }: HttpRequest): string | undefined {
  return /^bearer +(\S+) *$/i.exec(headers.authorization ?? '')?.[1];
}

export function tooManyTries(): HttpResponse {
  return { ...plainText(429, 'too many wrong tokens, try again in a minute'), headers: { 'Retry-After': '60' } };
}

function unauthorized(text: string): HttpResponse {
  return { ...plainText(401, text), headers: { 'WWW-Authenticate': 'Bearer' } };
}
