/** What the etcd client, TLS and the kernel say of a failed call, in words for an operator. */

/** The first that fits counts. */
const sayings: readonly (readonly [RegExp, string])[] = [
  // What the kernel says of a connection.
  [/ECONNREFUSED/, 'nothing listens there'],
  [/EHOSTUNREACH/, 'no host answers at this address'],
  [/ENETUNREACH/, 'this host has no route to it'],
  [/ENOTFOUND|EAI_|Name resolution failed/, 'its name cannot be resolved'],
  [/connect (EACCES|EPERM)/, 'this host forbids the connection: look at its packet filter'],
  [/EADDRNOTAVAIL/, 'this host has no free port or no address to connect from'],
  [/EMFILE|ENFILE/, 'this host has no file descriptor left'],
  // What etcd says.
  [/request timed out/, 'it answers, but its cluster does not agree in time: no quorum, or a slow disk'],
  [/no leader/, 'its cluster has no leader'],
  [/leader changed/, 'its cluster has just changed its leader'],
  [/too many requests/, 'it has too many requests to serve'],
  [/server stopped/, 'it is being stopped'],
  [/not supported for learner/, 'this member is a learner, which serves no clients yet'],
  [/corrupt cluster/, 'it has found its data corrupt (alarm CORRUPT)'],
  [/permission denied/, 'permission denied'],
  [/authentication failed/, 'the user name or the password is wrong'],
  [/user name is empty/, 'it wants a login and got none'],
  [/authentication is not enabled/, 'it has authentication switched off and takes no login'],
  [/invalid auth token|revision of auth store is old/, 'the login has expired'],
  [/database space exceeded/, 'it is out of space (alarm NOSPACE)'],
  [/larger than max/, 'a message would be larger than a message may be'],
  [/has been compacted/, 'that revision has been compacted'],
  [/UNIMPLEMENTED|unknown service/, 'what listens there is no etcd of version 3'],
  // TLS.
  [/certificate has expired|CERT_HAS_EXPIRED/, 'its certificate has expired'],
  [/certificate is not yet valid/, 'its certificate is not valid yet'],
  [/self.signed certificate/, 'its certificate is signed by itself or by an unknown CA'],
  [/unable to verify|unable to get (local )?issuer/, 'its certificate is signed by an unknown CA'],
  [/ALTNAME_INVALID|does not match certificate/, 'its certificate is for other names'],
  [/wrong version number|packet length too long|unknown protocol/, 'it does not speak TLS there'],
  [/alert (certificate required|number 116)/, 'it wants a client certificate'],
  [/alert (bad certificate|certificate unknown|unknown ca|number (42|46|48))/, 'it refuses the client certificate'],
  [/alert|SSL routines/, 'the TLS handshake failed'],
  // HTTP/2 and gRPC.
  [/HTTP status code|Protocol error|Parse Error/, "what listens there does not speak etcd's protocol"],
  [/Deadline exceeded|DEADLINE_EXCEEDED|ETIMEDOUT|Keepalive timeout|[Pp]ing timeout/, 'no answer in time'],
  [/ECONNRESET|EPIPE|hang up|Connection dropped|disconnected before secure/, 'it broke the connection off'],
  [/RST_STREAM|GOAWAY|Session closed|stream was destroyed/, 'it broke the request off'],
  [/Failed to connect|No connection established/, 'no connection could be made'],
];

/** Returns the sentence for a text of the client; one that is not known loses the names of classes and codes. */
export function inOurWords(text: string): string {
  const known = sayings.find(([pattern]) => pattern.test(text))?.[1];
  if (known !== undefined) return known;
  return text
    .replace(/^(\w*Error: )+/, '')
    .replace(/^\d+ [A-Z_]+: /, '')
    .replace(/^etcdserver: (mvcc: )?/, '')
    .replace(/\s*(\([\dTZ:.-]+\))?\.? Resolution note:\s*$/, '')
    .slice(0, 300);
}
