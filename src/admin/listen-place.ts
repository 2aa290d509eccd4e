/**
 * Where a listener for people listens: an address and a port, or a socket file. Whatever other hosts reach must have a
 * token and TLS.
 */
import { X509Certificate } from 'node:crypto';
import { BlockList, isIP } from 'node:net';
import { createSecureContext } from 'node:tls';
import { messageOf, TartanError } from '../lib/errors.js';
import { readTextFile } from '../lib/file.js';
import { shown } from '../model/ip.js';

export interface ListenAddress {
  readonly ip: string;
  readonly port: number;
}

/** @throws TartanError USAGE */
export function parseListenAddress(text: string, source: string): ListenAddress {
  const [, bracketed, plain, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.]+)):(\d{1,5})$/.exec(text) ?? [];
  const ip = (bracketed ?? plain)?.toLowerCase() === 'localhost' ? '127.0.0.1' : (bracketed ?? plain ?? '');
  const port = Number(digits);
  if (isIP(ip) === (bracketed === undefined ? 4 : 6) && port <= 65_535) return { ip, port };
  throw new TartanError(
    'USAGE',
    `${source}: '${shown(text)}' is not usable, expected an address and a port such as 127.0.0.1:8286 or [::1]:8286`,
  );
}

export function formatListenAddress({ ip, port }: ListenAddress): string {
  return isIP(ip) === 6 ? `[${ip}]:${port}` : `${ip}:${port}`;
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

export function isLoopback(ip: string): boolean {
  return loopback.check(ip, isIP(ip) === 6 ? 'ipv6' : 'ipv4');
}

export interface TlsIdentity {
  readonly cert: string;
  readonly key: string;
  /** Says whether the certificate is for a name. */
  readonly hasName: (name: string) => boolean;
  readonly notes: readonly string[];
}

/** Names of options, for messages. */
export interface TlsSources {
  readonly certFile: string;
  readonly keyFile: string;
}

/**
 * Reads a certificate with its chain, and its key, both PEM.
 * @throws TartanError CONFIG_INVALID
 */
export function readTlsIdentity(certFile: string, keyFile: string, sources: TlsSources): TlsIdentity {
  const cert = readPem(certFile, sources.certFile);
  const key = readPem(keyFile, sources.keyFile);
  try {
    createSecureContext({ cert, key });
    const leaf = new X509Certificate(cert);
    const ended = Date.parse(leaf.validTo) < Date.now();
    return {
      cert,
      key,
      hasName: name => leaf.checkHost(name) !== undefined,
      notes: ended ? [`${sources.certFile}: the certificate ${certFile} ended on ${leaf.validTo}; renew it`] : [],
    };
  } catch (cause) {
    throw new TartanError(
      'CONFIG_INVALID',
      `${sources.certFile} ${certFile} and ${sources.keyFile} ${keyFile} are not usable together ` +
        `(${messageOf(cause)}), expected a certificate and its key in PEM`,
      { cause },
    );
  }
}

function readPem(path: string, source: string): string {
  const reading = readTextFile(path);
  if (reading.known && reading.value !== undefined) return reading.value;
  const reason = reading.known ? 'there is no such file' : reading.why;
  throw new TartanError('CONFIG_INVALID', `${source}: ${path} cannot be read (${reason}), expected a file in PEM`);
}

/** Names of options, for messages. */
export interface ProtectionSources {
  readonly listen: string;
  readonly token: string;
  readonly tls: string;
}

/** @throws TartanError USAGE when other hosts reach the address and it has no token or no TLS */
export function requireProtection(
  address: ListenAddress,
  given: { readonly token: boolean; readonly tls: boolean },
  sources: ProtectionSources,
): void {
  if (isLoopback(address.ip)) return;
  const missing = [...(given.token ? [] : [sources.token]), ...(given.tls ? [] : [sources.tls])];
  if (missing.length === 0) return;
  throw new TartanError(
    'USAGE',
    `${sources.listen}: other hosts reach ${formatListenAddress(address)}, expected ${missing.join(' and ')} as well, ` +
      `or an address of this host alone such as 127.0.0.1:${address.port}`,
  );
}
