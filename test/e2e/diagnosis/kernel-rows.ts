/** D14: the port of the engine kernel alone is blocked, between two hosts whose packets went by it. */
import type { Lab } from '../../support/lab.js';
import { run, until } from '../../support/tools.js';
import type { DiagnosisRow, Heal } from './row.js';

/** On host b, once the packets from a to it go by the kernel. */
async function blockAtB(lab: Lab): Promise<Heal> {
  await until('a sends by the kernel', async () =>
    (await lab.node('a').status()).peers.some(({ watched }) => watched?.engine === 'kernel'),
  );
  const atB = (...words: readonly string[]): Promise<string> => run(lab.spaces.inside('b', ['iptables', ...words]));
  const rule = ['INPUT', '-p', 'udp', '--dport', '4790', '-j', 'DROP'];
  await atB('-I', ...rule);
  return () => atB('-D', ...rule);
}

export const kernelRows: readonly DiagnosisRow[] = [
  {
    id: 'D14',
    what: 'UDP port of the engine kernel alone blocked at the peer',
    on: 'a',
    trafficTo: 'b',
    inject: blockAtB,
    peers: /user .*no answer on UDP 4790/,
    doctor: [
      'kernel-path-silent',
      /not by UDP 4790.*on the other host: iptables -I INPUT -p udp --dport 4790 -j ACCEPT/,
    ],
    // A pair that does not answer is tried again each minute.
    healLimitMs: 90_000,
  },
  {
    id: 'D14',
    what: 'the same, seen from the peer itself',
    on: 'b',
    trafficTo: 'b',
    inject: blockAtB,
    doctor: ['kernel-port-dropped', /firewall of this host.*iptables -t filter -I INPUT -p udp --dport 4790 -j ACCEPT/],
    healLimitMs: 90_000,
  },
];
