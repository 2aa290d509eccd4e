/** Judges the engine kernel: whether it runs where it is asked for, and whether the network lets its packets pass. */
import type { KernelEngineStatus, Status, StatusPeer } from '../agent/status.js';
import type { Finding } from '../docker/verify/finding.js';
import { listed } from '../docker/verify/finding.js';
import { factValue } from '../lib/fact.js';
import { kernelPort } from '../model/plan.js';
import { check, diagnosis, uncheckedIf, type Check } from './check.js';
import type { DoctorFacts, UnderlayFindings } from './facts.js';
import { peerNameOf } from './judge-peers.js';

const explicit = `UDP ${kernelPort} accepted explicitly`;
const untracked = 'its packets are not tracked, so a rule for established ones is not enough';

export function judgeKernel({ status: fact, underlay }: DoctorFacts): readonly Check[] {
  const status = factValue(fact);
  const kernel = status?.datapath?.kernel;
  if (!status || !kernel || kernel.wanted === 'user') return [];
  return [
    check('Data plane', 'the engine kernel runs', judgeEngine(kernel)),
    check('Underlay', `UDP ${kernelPort} of the engine kernel passes`, judgePort(status, underlay)),
  ];
}

function judgeEngine({ state, reason, wanted }: KernelEngineStatus): readonly Finding[] {
  if (state !== 'unavailable') return [];
  return [
    diagnosis(wanted === 'kernel' ? 'warning' : 'note', 'kernel-unavailable', {
      found: 'the engine kernel is asked for and does not run; packets go by user space',
      cause: reason ?? 'not known',
      expected: `what --engine=${wanted} asks for`,
      repair: 'do what it says, then systemctl restart tartand; --engine=user asks for nothing',
    }),
  ];
}

function judgePort(status: Status, { kernelDrops }: UnderlayFindings): readonly Finding[] {
  if (!kernelDrops.known) return uncheckedIf('kernel-port', 'the rules for the engine kernel', kernelDrops);
  const own = kernelDrops.value.map(({ what, rule, repair }) =>
    diagnosis('warning', 'kernel-port-dropped', {
      found: `${rule} packets of the engine kernel that ${what === 'out' ? 'go out' : 'come in'} (UDP port ${kernelPort}); they go by user space`,
      cause: `the firewall of this host; ${untracked}`,
      expected: explicit,
      repair,
    }),
  );
  const silent = own.length > 0 ? [] : status.peers.filter(isSilentByKernel);
  if (silent.length === 0) return own;
  return [
    diagnosis('warning', 'kernel-path-silent', {
      found: `${listed(silent.map(peerNameOf))} ${silent.length === 1 ? 'answers' : 'answer'} by UDP ${status.backend?.port ?? '-'} and not by UDP ${kernelPort}; packets go by user space`,
      cause: `a firewall on the other host, or on the way, lets the first port pass and not UDP ${kernelPort}; ${untracked}`,
      expected: explicit,
      repair: `on the other host: iptables -I INPUT -p udp --dport ${kernelPort} -j ACCEPT, and let it pass between the hosts`,
    }),
  ];
}

/** In the words of the engine itself; user space hears the peer. A pair is tried again before ten seconds are over. */
function isSilentByKernel({ watched }: StatusPeer): boolean {
  const silence = /^no answer on UDP \d+ for (\d+) (s|min)/.exec(watched?.engineReason ?? '');
  const isLong = silence !== null && (silence[2] === 'min' || Number(silence[1]) >= 10);
  return watched?.state === 'up' && watched.engine === 'user' && isLong;
}
