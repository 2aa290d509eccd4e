/**
 * Parses the options of etcd that the daemon and the tool share: endpoints, key prefix, TLS files, login. Errors are
 * USAGE and name the option by the caller's name for it; neither a password nor the login part of a URL is ever shown.
 */
import { readFileSync, statSync } from 'node:fs';
import { posix } from 'node:path';
import { messageOf, TartanError } from '../lib/errors.js';
import { describeOddity } from './odd-text.js';
import { readIpv4, shown } from '../model/ip.js';
import { checkEtcdOptions, type EtcdOptions } from '../store/etcd/options.js';

/** A text and the place that it came from, for messages. */
export interface SourcedText {
  readonly text: string;
  readonly source: string;
}

export interface EtcdOptionTexts {
  readonly endpoints: SourcedText;
  readonly prefix: SourcedText;
  readonly caFile: string | undefined;
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  readonly username: string;
  readonly password: string;
  readonly passwordFile: SourcedText | undefined;
  readonly insecureEtcd: boolean;
}

export interface ParsedEtcdOptions {
  readonly options: EtcdOptions;
  readonly notes: readonly string[];
}

/** @throws TartanError USAGE; CONFIG_INVALID for a file that cannot be used */
export function parseEtcdOptions(texts: EtcdOptionTexts): ParsedEtcdOptions {
  const notes: string[] = [];
  const { caFile, certFile, keyFile, insecureEtcd } = texts;
  const endpoints = parseEndpoints(texts.endpoints, (caFile ?? certFile) !== undefined);
  const secure = endpoints.every(endpoint => endpoint.startsWith('https:'));
  if (!secure && (caFile ?? certFile) !== undefined)
    notes.push('the TLS files for etcd have no effect: the endpoints are http');
  const login = readLogin(texts, notes);
  const options = {
    endpoints,
    prefix: parseKeyPrefix(texts.prefix),
    ...(caFile === undefined ? {} : { caFile }),
    ...(certFile === undefined ? {} : { certFile }),
    ...(keyFile === undefined ? {} : { keyFile }),
    ...login,
    insecureEtcd,
  };
  checkEtcdOptions(options);
  return { options, notes };
}

/** @param tls the scheme of a bare `host:port`, which etcdctl and flannel's client take as well */
function parseEndpoints({ text, source }: SourcedText, tls: boolean): readonly string[] {
  // The whole text is checked before it is split: a password may hold a comma.
  if (text.includes('@'))
    throw new TartanError(
      'USAGE',
      `${source}: an endpoint must not hold a login; give a user name and a password file`,
    );
  // Spaces after commas, and a comma at the end, leave no doubt.
  const items = text.split(',').map(item => item.replace(/^[ \t]+|[ \t]+$/g, ''));
  const given = items.some(item => item !== '') ? items.filter(item => item !== '') : [''];
  const endpoints = given.map(item => parseEndpoint(item, source, tls ? 'https' : 'http'));
  // One TLS setting serves the whole client: a mixed list would send some requests in clear.
  if (new Set(endpoints.map(endpoint => endpoint.slice(0, 5))).size > 1)
    throw new TartanError('USAGE', `${source}: endpoints are partly http, partly https; expected one of them for all`);
  return endpoints;
}

/** A name may end with a dot: then no search domain is added to it. */
const hostGrammar = /^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?)$/;
const endpointGrammar = /^(https?):\/\/([^:/?#]*|\[[^\]]*\])(?::([0-9]*))?\/?$/;

function parseEndpoint(text: string, source: string, assumed: string): string {
  const full = text.includes('://') ? text.replace(/^https?(?=:)/i, lowerCase) : `${assumed}://${text}`;
  const [, scheme = '', host = '', given] = endpointGrammar.exec(full) ?? [];
  // Of https the port is known to everyone; http without a port would be 80, which no etcd has.
  const port = given ?? (scheme === 'https' && text.includes('://') ? '443' : undefined);
  const cause = whyNoEndpoint(text, full, host, port);
  if (cause !== undefined)
    throw new TartanError(
      'USAGE',
      `${source}: '${shown(text)}' is not an endpoint (${cause}), expected http://host:port or https://host:port`,
    );
  // Servers refuse the dot in the name of TLS (RFC 6066).
  return `${scheme}://${scheme === 'https' ? host.replace(/\.$/, '') : host}:${Number(port)}`;
}

function lowerCase(scheme: string): string {
  return scheme.toLowerCase();
}

/** @returns undefined for an endpoint that can be used */
function whyNoEndpoint(text: string, full: string, host: string, port: string | undefined): string | undefined {
  const oddity = describeOddity(text);
  if (oddity !== undefined) return oddity;
  if (text === '') return 'it is empty';
  const scheme = /^([^:/]*):\/\//.exec(full)?.[1];
  if (scheme !== 'http' && scheme !== 'https') return `its scheme is '${shown(scheme ?? '')}'`;
  if (/[\s;]/.test(text)) return 'endpoints are separated by commas';
  if (host === '' && /^\w+:\/\/[0-9a-fA-F]*:[0-9a-fA-F]*:/.test(full)) return 'an IPv6 address needs brackets, [::1]';
  if (!endpointGrammar.test(full))
    return host === '' && /\/\/[^/]+[/?#]/.test(full) ? 'it has a path' : 'it is malformed';
  if (host === '') return 'it has no host';
  if (!hostGrammar.test(host)) return `'${shown(host)}' is no host name or address`;
  if (/^[0-9.]+$/.test(host) && readIpv4(host) === undefined) return `'${shown(host)}' is no IPv4 address`;
  if (port === undefined || port === '') return `it has no port, that of etcd is 2379`;
  if (Number(port) < 1 || Number(port) > 65_535) return `its port ${shown(port)} is not from 1 to 65535`;
  return undefined;
}

/** The store joins the prefix with the names below it, as Go's path.Join does. */
function parseKeyPrefix({ text, source }: SourcedText): string {
  if (!/^[\x20-\x7e]{1,512}$/.test(text) || posix.normalize(text).startsWith('..'))
    throw new TartanError(
      'USAGE',
      `${source}: '${shown(text)}' is not a key prefix, expected one such as /coreos.com/network`,
    );
  return text;
}

function readLogin(texts: EtcdOptionTexts, notes: string[]): { username: string; password: string } | undefined {
  const { username, passwordFile } = texts;
  if (texts.password !== '' && passwordFile)
    throw new TartanError('USAGE', `an etcd password is given twice, as text and by ${passwordFile.source}; give one`);
  const password = passwordFile ? readPasswordFile(passwordFile, notes) : texts.password;
  if (username !== '' && password !== '') return { username, password };
  if (username !== '') notes.push('the etcd user name has no effect: no password is given');
  if (password !== '') notes.push('the etcd password has no effect: no user name is given');
  return undefined;
}

const maxPasswordBytes = 4096;

function readPasswordFile({ text: path, source }: SourcedText, notes: string[]): string {
  const refuse = (why: string, cause?: unknown): TartanError =>
    new TartanError('CONFIG_INVALID', `${source}: ${shown(path)} ${why}, expected a file with the password in it`, {
      cause,
    });
  let content: string;
  try {
    const info = statSync(path);
    if (!info.isFile()) throw refuse('is not a file');
    if (info.size > maxPasswordBytes) throw refuse(`has ${info.size} bytes, at most ${maxPasswordBytes} are read`);
    if ((info.mode & 0o007) !== 0) notes.push(`${path} can be used by every user of this host: chmod 600 it`);
    content = readFileSync(path, 'utf8');
  } catch (cause) {
    if (cause instanceof TartanError) throw cause;
    throw refuse(`cannot be read (${messageOf(cause)})`, cause);
  }
  // An editor ends the last line; the newline is not part of the password.
  const password = content.replace(/\r?\n$/, '');
  if (password === '') throw refuse('is empty');
  return password;
}
