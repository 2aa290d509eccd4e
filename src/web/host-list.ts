/**
 * The file of `tartan web --hosts`: one host a line, `URL TOKEN-FILE CA-FILE`, with blanks between; CA-FILE may be left out
 * where the system knows the authority, and `#` begins a remark. Plain http is for this host alone, and needs no token.
 */
import { readToken } from '../admin/access.js';
import { isLoopback } from '../admin/listen-place.js';
import { TartanError } from '../lib/errors.js';
import { readTextFile } from '../lib/file.js';
import { isIP } from 'node:net';
import { shown } from '../model/ip.js';

export interface RemoteHost {
  readonly url: URL;
  readonly token: string | undefined;
  /** PEM; undefined: the system's authorities. */
  readonly ca: string | undefined;
}

const expected = 'expected lines such as: https://192.0.2.1:8287 /etc/tartan/a.token /etc/tartan/ca.pem';

/**
 * Reads the list and the files that it names.
 * @throws TartanError CONFIG_INVALID naming the line
 */
export function readHostList(path: string, source: string): readonly RemoteHost[] {
  const hosts = linesOf(path, source).flatMap((line, at) => {
    const words = line
      .replace(/(^|\s)#.*$/, '')
      .split(/\s+/)
      .filter(word => word !== '');
    return words.length === 0 ? [] : [readHost(words, `${path}, line ${at + 1}`)];
  });
  if (hosts.length === 0) throw new TartanError('CONFIG_INVALID', `${source}: ${path} names no host, ${expected}`);
  return hosts;
}

function linesOf(path: string, source: string): readonly string[] {
  const reading = readTextFile(path);
  if (reading.known && reading.value !== undefined) return reading.value.split('\n');
  const reason = reading.known ? 'there is no such file' : reading.why;
  throw new TartanError('CONFIG_INVALID', `${source}: ${path} cannot be read (${reason}), ${expected}`);
}

function readHost([address = '', tokenFile, caFile, ...more]: readonly string[], place: string): RemoteHost {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  const isBare =
    url?.pathname === '/' && url.search === '' && url.hash === '' && url.username === '' && url.password === '';
  if (!url || !isBare || more.length > 0 || !['http:', 'https:'].includes(url.protocol))
    throw new TartanError(
      'CONFIG_INVALID',
      `${place}: '${shown(address.replace(/\/\/[^/]*@/, '//...@'))}' is no host to ask, ${expected}`,
    );
  const name = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const isHere = isIP(name) === 0 ? name === 'localhost' : isLoopback(name);
  if (!isHere && (url.protocol === 'http:' || tokenFile === undefined))
    throw new TartanError('CONFIG_INVALID', `${place}: ${url.origin} needs https and a token file, ${expected}`);
  return {
    url: new URL('/status', url),
    token: tokenFile === undefined ? undefined : readToken(tokenFile, place).text,
    ca: caFile === undefined ? undefined : linesOf(caFile, place).join('\n'),
  };
}
