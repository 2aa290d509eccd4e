/** A CA of the cluster's own and the certificate of its etcd, made by the openssl program. */
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomBytes, X509Certificate } from 'node:crypto';
import { writeFileAtomic } from '../lib/file.js';
import { formatIpv4, type Ipv4 } from '../model/ip.js';
import { plainFingerprint } from './ca-chain.js';
import { etcdPaths, etcdUser } from './etcd-plan.js';
import { runProgram } from './step.js';

/** Twenty years: nothing here makes them anew before that. */
const days = '7300';

/** Read by both requests; its place is given, so that no openssl.cnf of the host adds to it. */
function configuration(name: string, address: Ipv4): string {
  return `[req]
distinguished_name = name
prompt = no
[name]
CN = ${name}
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = IP:${formatIpv4(address)}, IP:127.0.0.1, DNS:localhost
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
`;
}

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/** Makes the CA and the certificate of this host, in their places with their owners. */
export async function makeCertificates(address: Ipv4): Promise<void> {
  await inFolder(async at => {
    writeFileSync(at('ca.cnf'), configuration('tartan-etcd-ca', address));
    const own = ['-config', at('ca.cnf'), '-extensions', 'ca', '-days', days, '-keyout', at('ca.key')];
    await runProgram(['openssl', 'req', '-x509', ...newKey, ...own, '-out', at('ca.pem')]);
    await sign(at, address, { certificate: at('ca.pem'), key: at('ca.key') });
    const read = (name: string): string => readFileSync(at(name), 'utf8');
    await placeCertificates({ ca: read('ca.pem'), certificate: read('server.pem'), key: read('server.key') });
    writeFileAtomic(etcdPaths.caKey, read('ca.key'), 0o600);
  });
}

export interface MemberCertificate {
  /** In PEM, each. */
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

/** Makes a certificate for the etcd of another host, by the CA of this one. */
export async function makeMemberCertificate(address: Ipv4): Promise<MemberCertificate> {
  return inFolder(async at => {
    await sign(at, address, { certificate: etcdPaths.ca, key: etcdPaths.caKey });
    const read = (path: string): string => readFileSync(path, 'utf8');
    return { ca: read(etcdPaths.ca), certificate: read(at('server.pem')), key: read(at('server.key')) };
  });
}

type Place = (name: string) => string;

/** Keys are made in a folder that root alone can enter. */
async function inFolder<T>(work: (at: Place) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'tartan-ca-'));
  try {
    return await work(name => join(folder, name));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Makes server.key and server.pem in the folder. @param ca the paths of its certificate and key */
async function sign(at: Place, address: Ipv4, ca: Pick<MemberCertificate, 'certificate' | 'key'>): Promise<void> {
  writeFileSync(at('server.cnf'), configuration('tartan-etcd', address));
  const request = ['-config', at('server.cnf'), '-keyout', at('server.key'), '-out', at('server.csr')];
  await runProgram(['openssl', 'req', '-new', ...newKey, ...request]);
  // A serial number that is made up: a file of them beside the CA would be one file more.
  const serial = ['-set_serial', `0x${randomBytes(16).toString('hex').replace(/^./, '4')}`];
  const signer = ['-CA', ca.certificate, '-CAkey', ca.key, ...serial, '-days', days];
  const extensions = ['-extfile', at('server.cnf'), '-extensions', 'server'];
  await runProgram([
    'openssl',
    'x509',
    '-req',
    '-in',
    at('server.csr'),
    ...signer,
    ...extensions,
    '-out',
    at('server.pem'),
  ]);
}

/** Puts what etcd reads where it reads it, with its owners. */
export async function placeCertificates({ ca, certificate, key }: MemberCertificate): Promise<void> {
  const uid = Number((await runProgram(['id', '-u', etcdUser])).trim());
  const gid = Number((await runProgram(['id', '-g', etcdUser])).trim());
  mkdirSync('/etc/tartan/etcd', { recursive: true, mode: 0o755 });
  for (const path of ['/etc/tartan', '/etc/tartan/etcd']) chmodSync(path, 0o755);
  writeFileAtomic(etcdPaths.ca, ca, 0o644);
  // With the CA, so that a host that joins finds it by the fingerprint of its token.
  writeFileAtomic(etcdPaths.certificate, certificate + ca, 0o644);
  writeFileAtomic(etcdPaths.key, key, 0o600);
  chownSync(etcdPaths.key, uid, gid);
}

/** @returns SHA-256 of the CA's certificate, lower-case hexadecimal */
export function caFingerprint(): string {
  return plainFingerprint(new X509Certificate(readFileSync(etcdPaths.ca)));
}
