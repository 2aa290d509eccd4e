/**
 * The options of the connection to etcd: endpoints, TLS files, login. Each client reads the files anew, so that rotated
 * certificates are used without a restart. No message contains a password or a key.
 */
import { X509Certificate, createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { rootCertificates } from 'node:tls';
import { messageOf, TartanError } from '../../lib/errors.js';

export interface EtcdOptions {
  /** `http://host:port` or `https://host:port`. */
  readonly endpoints: readonly string[];
  readonly prefix: string;
  readonly caFile?: string;
  readonly certFile?: string;
  readonly keyFile?: string;
  readonly username?: string;
  readonly password?: string;
  /** Permits a password in clear text to another host. */
  readonly insecureEtcd?: boolean;
}

export interface TlsFiles {
  readonly rootCertificate: Buffer;
  readonly privateKey?: Buffer;
  readonly certChain?: Buffer;
}

/** @throws TartanError CONFIG_INVALID for an unusable file, USAGE for options that do not go together */
export function checkEtcdOptions(options: EtcdOptions): void {
  if (options.endpoints.length === 0) throw new TartanError('USAGE', 'no etcd endpoint is given');
  for (const endpoint of options.endpoints) {
    if (hostOf(endpoint) === undefined)
      throw new TartanError('USAGE', 'an etcd endpoint is not of the form http://host:port or https://host:port');
    if (options.password && !options.insecureEtcd && isPlain(endpoint) && !isLoopback(endpoint)) {
      throw new TartanError(
        'USAGE',
        `the etcd password would cross the network in clear to ${endpoint}: use https, or --insecure-etcd if that is meant`,
      );
    }
  }
  if (options.endpoints.some(endpoint => !isPlain(endpoint))) readTlsFiles(options);
}

/** @returns undefined when no file is given: TLS trusts the system's roots then */
export function readTlsFiles(options: EtcdOptions): TlsFiles | undefined {
  const { caFile, certFile, keyFile } = options;
  if ((certFile === undefined) !== (keyFile === undefined))
    throw new TartanError('USAGE', 'an etcd client certificate needs its key: give --etcd-certfile and --etcd-keyfile');
  if (caFile === undefined && certFile === undefined) return undefined;
  const rootCertificate =
    caFile === undefined ? Buffer.from(rootCertificates.join('\n')) : readPem('--etcd-cafile', caFile, asCertificate);
  if (certFile === undefined || keyFile === undefined) return { rootCertificate };
  const certChain = readPem('--etcd-certfile', certFile, asCertificate);
  const privateKey = readPem('--etcd-keyfile', keyFile, createPrivateKey);
  if (!new X509Certificate(certChain).checkPrivateKey(createPrivateKey(privateKey)))
    throw new TartanError(
      'CONFIG_INVALID',
      `--etcd-keyfile ${keyFile} is the key of another certificate than --etcd-certfile ${certFile}: give the two that belong together`,
    );
  return { rootCertificate, certChain, privateKey };
}

export function isPlain(endpoint: string): boolean {
  return !endpoint.startsWith('https://');
}

/** Returns where an endpoint is, for a socket of our own. */
export function hostAndPort(endpoint: string): { readonly host: string; readonly port: number } {
  const { protocol, hostname, port } = new URL(endpoint);
  const host = hostname.replace(/^\[|\]$/g, '');
  return { host, port: Number(port || (protocol === 'https:' ? 443 : 80)) };
}

function asCertificate(pem: Buffer): X509Certificate {
  return new X509Certificate(pem);
}

function readPem(flag: string, path: string, parse: (pem: Buffer) => unknown): Buffer {
  const expected = flag === '--etcd-keyfile' ? 'an unencrypted private key' : 'a certificate';
  try {
    const pem = readFileSync(path);
    if (!pem.includes('-----BEGIN ')) throw new Error(isDer(pem) ? derText(flag, path) : 'it is no PEM');
    parse(pem);
    return pem;
  } catch (cause) {
    throw new TartanError(
      'CONFIG_INVALID',
      `${flag} ${path} cannot be used (${messageOf(cause)}), expected ${expected} in PEM`,
    );
  }
}

/** DER begins with a sequence of more than 127 bytes. */
function isDer(bytes: Buffer): boolean {
  return bytes[0] === 0x30 && (bytes[1] ?? 0) > 0x80;
}

function derText(flag: string, path: string): string {
  const kind = flag === '--etcd-keyfile' ? 'pkey' : 'x509';
  return `it is in DER: convert it with openssl ${kind} -inform der -in ${path} -out ${path}.pem`;
}

function hostOf(endpoint: string): string | undefined {
  return /^https?:\/\/(\[[0-9a-fA-F:]+\]|[^/:@\s]+):\d{1,5}$/.exec(endpoint)?.[1];
}

function isLoopback(endpoint: string): boolean {
  const host = hostOf(endpoint) ?? '';
  return host === 'localhost' || host === '[::1]' || /^127(\.\d{1,3}){3}$/.test(host);
}
