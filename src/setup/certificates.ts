/** A CA of the cluster's own and the certificate of its etcd, made by the openssl program. */
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { X509Certificate } from 'node:crypto';
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

/** The keys are made in a folder that root alone can enter, and get their places with their owners. */
export async function makeCertificates(address: Ipv4): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'tartan-ca-'));
  const at = (name: string): string => join(folder, name);
  try {
    writeFileSync(at('ca.cnf'), configuration('tartan-etcd-ca', address));
    writeFileSync(at('server.cnf'), configuration('tartan-etcd', address));
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    const openssl = (...args: readonly string[]): Promise<string> => runProgram(['openssl', ...args]);
    const own = ['-config', at('ca.cnf'), '-extensions', 'ca', '-days', days, '-keyout', at('ca.key')];
    await openssl('req', '-x509', ...key, ...own, '-out', at('ca.pem'));
    const request = ['-config', at('server.cnf'), '-keyout', at('server.key'), '-out', at('server.csr')];
    await openssl('req', '-new', ...key, ...request);
    const signer = ['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-days', days];
    const extensions = ['-extfile', at('server.cnf'), '-extensions', 'server'];
    await openssl('x509', '-req', '-in', at('server.csr'), ...signer, ...extensions, '-out', at('server.pem'));
    await place(at);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function place(at: (name: string) => string): Promise<void> {
  const read = (name: string): string => readFileSync(at(name), 'utf8');
  const uid = Number((await runProgram(['id', '-u', etcdUser])).trim());
  const gid = Number((await runProgram(['id', '-g', etcdUser])).trim());
  mkdirSync('/etc/tartan/etcd', { recursive: true, mode: 0o755 });
  for (const path of ['/etc/tartan', '/etc/tartan/etcd']) chmodSync(path, 0o755);
  writeFileAtomic(etcdPaths.caKey, read('ca.key'), 0o600);
  writeFileAtomic(etcdPaths.ca, read('ca.pem'), 0o644);
  // With the CA, so that a host that joins finds it by the fingerprint of its token.
  writeFileAtomic(etcdPaths.certificate, read('server.pem') + read('ca.pem'), 0o644);
  writeFileAtomic(etcdPaths.key, read('server.key'), 0o600);
  chownSync(etcdPaths.key, uid, gid);
}

/** @returns SHA-256 of the CA's certificate, lower-case hexadecimal */
export function caFingerprint(): string {
  return plainFingerprint(new X509Certificate(readFileSync(etcdPaths.ca)));
}
