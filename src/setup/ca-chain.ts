/**
 * Finds the CA of a cluster's etcd by its fingerprint, on a connection on which nothing is sent: whoever answers there
 * learns no password, and what it shows counts only where the fingerprint is that of the token.
 */
import { once } from 'node:events';
import { isIP } from 'node:net';
import { connect, type DetailedPeerCertificate } from 'node:tls';
import { messageOf, TartanError } from '../lib/errors.js';
import { hostAndPort } from '../store/etcd/options.js';

const connectMs = 3_000;

/**
 * @param fingerprint SHA-256 of the CA's certificate, lower-case hexadecimal
 * @returns the certificate in PEM
 * @throws TartanError STORE_UNAVAILABLE where no endpoint answers, PERMISSION where one shows another CA
 */
export async function readCa(endpoints: readonly string[], fingerprint: string): Promise<string> {
  const reasons: string[] = [];
  for (const endpoint of endpoints) {
    try {
      const chain = await readChain(endpoint);
      const found = chain.find(one => plainFingerprint(one) === fingerprint);
      if (!found)
        throw new TartanError(
          'PERMISSION',
          `${endpoint} shows another CA than the token names: another machine answers there, or the cluster has a new CA; nothing was sent to it`,
        );
      return `-----BEGIN CERTIFICATE-----\n${found.raw.toString('base64').replace(/.{1,64}/g, '$&\n')}-----END CERTIFICATE-----\n`;
    } catch (error) {
      if (error instanceof TartanError) throw error;
      reasons.push(`${endpoint}: ${messageOf(error)}`);
    }
  }
  throw new TartanError('STORE_UNAVAILABLE', `no etcd of the token answers: ${reasons.join('; ')}`);
}

/** @returns SHA-256 of a certificate as lower-case hexadecimal, from the form that Node.js shows */
export function plainFingerprint({ fingerprint256 }: { readonly fingerprint256: string }): string {
  return fingerprint256.replaceAll(':', '').toLowerCase();
}

async function readChain(endpoint: string): Promise<readonly DetailedPeerCertificate[]> {
  const { host, port } = hostAndPort(endpoint);
  const name = isIP(host) ? {} : { servername: host };
  const signal = AbortSignal.timeout(connectMs);
  // Verified by the fingerprint, and by a second connection before anything is sent.
  const socket = connect({ host, port, rejectUnauthorized: false, ...name });
  const late = (): void => void socket.destroy(new Error(`no answer within ${connectMs / 1000} s`));
  signal.addEventListener('abort', late);
  try {
    await once(socket, 'secureConnect');
    const chain: DetailedPeerCertificate[] = [];
    for (let one = socket.getPeerCertificate(true); one?.raw && !chain.includes(one); one = one.issuerCertificate)
      chain.push(one);
    return chain;
  } finally {
    signal.removeEventListener('abort', late);
    socket.on('error', () => {});
    socket.destroy();
  }
}
