/** Names the cause of a connection that failed, with the next step. The client has its own words for most of them. */
import { connect } from 'node:tls';
import { nodeHttp, nodeHttps } from '../../lib/node-http.js';
import { hostAndPort, isPlain, readTlsFiles, type EtcdOptions } from './options.js';

const probeMs = 1_000;
const generic = 'check that it runs and can be reached';

interface Sign {
  readonly text: RegExp;
  readonly advice: (options: EtcdOptions) => string;
}

/** What a TLS connection says. */
const tlsSigns: readonly Sign[] = [
  {
    text: /alert (bad certificate|certificate required|certificate unknown|unknown ca|handshake failure|number (42|46|48|116))|tlsv13 alert/i,
    advice: ({ certFile }) =>
      certFile === undefined
        ? 'etcd asks for a client certificate: give --etcd-certfile and --etcd-keyfile'
        : `etcd refuses the client certificate ${certFile}: it must be valid now and signed by a CA of etcd's --trusted-ca-file`,
  },
  {
    text: /unable to verify|self.signed certificate|unable to get (local )?issuer/i,
    advice: ({ caFile }) =>
      caFile === undefined
        ? 'no CA of this system has signed its certificate: give the one that did as --etcd-cafile'
        : `its certificate is not signed by the CA in --etcd-cafile ${caFile}: give the CA that did`,
  },
  {
    text: /ALTNAME_INVALID|does not match certificate/i,
    advice: () => 'its certificate is for other names: give one of them in --etcd-endpoints, or add this one to it',
  },
  {
    text: /certificate (has expired|is not yet valid)|CERT_HAS_EXPIRED/i,
    advice: () => 'its certificate is not valid now: renew it, or set the clock of this host',
  },
  {
    text: /before secure TLS connection|wrong version number|packet length too long|unknown protocol/i,
    advice: () => noTls,
  },
];
const noTls = 'it does not speak TLS there: use http:// in --etcd-endpoints';

export async function adviceFor(options: EtcdOptions, endpoint: string, message: string): Promise<string> {
  if (!isPlain(endpoint)) {
    const advice = tlsSigns.find(({ text }) => text.test(message))?.advice(options);
    if (advice !== undefined) return advice;
    // A server without TLS answers the handshake and closes: now and then its reset overtakes the answer.
    return /ECONNRESET/.test(message) && (await speaksPlain(endpoint)) ? noTls : generic;
  }
  const mayBeTls = /Failed to connect|Connection dropped|Protocol error|ECONNRESET|socket hang up/.test(message);
  return mayBeTls && (await speaksTls(endpoint)) ? 'it speaks TLS there: use https:// in --etcd-endpoints' : generic;
}

async function speaksTls(endpoint: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ ...hostAndPort(endpoint), rejectUnauthorized: false, timeout: probeMs });
    const end = (speaks: boolean): void => {
      socket.destroy();
      resolve(speaks);
    };
    socket.on('secureConnect', () => end(true)).on('timeout', () => end(false));
    // A server that wants a certificate ends the handshake with an alert, which is TLS too.
    socket.on('error', error => end(/alert/.test(error.message)));
  });
}

async function speaksPlain(endpoint: string): Promise<boolean> {
  return new Promise(resolve => {
    const url = new URL('/version', endpoint.replace(/^https:/, 'http:'));
    const request = nodeHttp().request(url, { agent: false, timeout: probeMs }, answer => {
      answer.resume();
      // Go's TLS server answers plain HTTP too, with 400.
      resolve(answer.statusCode !== 400);
    });
    request.on('error', () => resolve(false)).on('timeout', () => request.destroy(new Error('no answer')));
    request.end();
  });
}

/** Tells whether a key has a value in the v2 store, which etcd before 3.6 may serve beside the one in use. */
export async function isInV2Store(options: EtcdOptions, endpoint: string, key: string): Promise<boolean> {
  const path = `/v2/keys${key.split('/').map(encodeURIComponent).join('/')}`;
  return new Promise(resolve => {
    const tls = isPlain(endpoint) ? undefined : readTlsFiles(options);
    const files = tls ? { ca: tls.rootCertificate, cert: tls.certChain, key: tls.privateKey } : {};
    const { request: send } = isPlain(endpoint) ? nodeHttp() : nodeHttps();
    const request = send(new URL(path, endpoint), { ...files, agent: false, timeout: probeMs }, answer => {
      answer.resume();
      resolve(answer.statusCode === 200);
    });
    request.on('error', () => resolve(false)).on('timeout', () => request.destroy(new Error('no answer')));
    request.end();
  });
}
