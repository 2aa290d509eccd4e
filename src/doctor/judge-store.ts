/** Judges the store and the lease: what the status says of both, and the dates of certificates. */
import type { Finding } from '../docker/verify/finding.js';
import type { Status } from '../agent/status.js';
import { factValue } from '../lib/fact.js';
import { check, diagnosis, uncheckedIf, type Check } from './check.js';
import type { CertificateFacts, DoctorFacts } from './facts.js';
import { problemsAt } from './judge-problems.js';

/** An etcd that is silent for longer is told also before the daemon calls it a problem. */
const silentSeconds = 60;
/** The lease ends sooner than this, and etcd does not answer. */
const endingSeconds = 3600;

export function judgeStore({ status: fact, own }: DoctorFacts): readonly Check[] {
  const status = factValue(fact);
  const dates = check(
    'Store',
    own.certificates.length === 0 ? 'no certificates are used' : 'certificates are valid',
    own.certificates.flatMap(one => judgeCertificate(one, own.wallMs)),
  );
  if (!status) return [dates];
  const { store, lease } = status;
  const answered = store?.answeredSeconds;
  return [
    check(
      'Store',
      typeof answered === 'number' ? `etcd answered ${Math.round(answered)} s ago` : 'etcd gives no problem',
      [...problemsAt(status, ['network', 'store']), ...judgeSilence(status), ...judgeEndpoints(status)],
    ),
    check('Store', lease ? `the lease of ${lease.subnet} is ${lease.state}` : 'no lease yet', [
      ...problemsAt(status, ['lease']),
      ...judgeEnd(status),
    ]),
    check('Store', `${status.peers.length} leases of others are sound`, judgeRefused(status)),
    dates,
  ];
}

function judgeSilence({ store, placedProblems }: Status): readonly Finding[] {
  if (!store || placedProblems.some(({ place }) => place === 'store')) return [];
  const { answeredSeconds, refused, endpoints } = store;
  const urls = endpoints.map(({ url }) => url).join(',');
  if (refused !== null)
    return [
      diagnosis('error', 'store-refuses', {
        found: `etcd refuses this host: ${refused}`,
        cause: 'the user, its role or its certificate',
        expected: 'a role that may read and write below the prefix',
        repair: 'etcd-role.sh, which tartan ships, makes the role; etcdctl user get USER shows it',
      }),
    ];
  if (answeredSeconds === null || answeredSeconds < silentSeconds) return [];
  return [
    diagnosis('error', 'store-silent', {
      found: `etcd has not answered for ${Math.round(answeredSeconds)} s`,
      cause: 'etcd is down or without a leader, or the way to it is cut',
      expected: 'an answer each 25 s',
      repair: `etcdctl --endpoints=${urls} endpoint health`,
    }),
  ];
}

/** Some of several endpoints are silent: the cluster has lost a member, or this host the way to it. */
function judgeEndpoints({ store }: Status): readonly Finding[] {
  const endpoints = store?.endpoints ?? [];
  if (!endpoints.some(({ state }) => state === 'answers')) return [];
  return endpoints
    .filter(({ state }) => state === 'silent' || state === 'refused')
    .map(({ url, state, reason }) =>
      diagnosis('warning', 'endpoint-silent', {
        found: `${url} ${state === 'silent' ? 'does not answer' : 'refuses'}${reason === null ? '' : `: ${reason}`}`,
        cause: 'this member of etcd is down or cut off; another one answers',
        expected: 'an answer of each member',
        repair: `etcdctl --endpoints=${url} endpoint health`,
      }),
    );
}

function judgeEnd({ lease, store, placedProblems }: Status): readonly Finding[] {
  if (!lease || lease.deadlineSeconds === null || lease.deadlineSeconds > endingSeconds) return [];
  const isTold = placedProblems.some(({ place }) => place === 'store');
  const isAway = lease.state !== 'held' || isTold || (store?.answeredSeconds ?? 0) >= silentSeconds;
  if (!isAway || lease.state === 'lost') return [];
  return [
    diagnosis('error', 'lease-ending', {
      found: `the lease of ${lease.subnet} ends in ${Math.round(lease.deadlineSeconds)} s, and etcd does not answer`,
      cause: 'it is renewed only by an answer of etcd',
      expected: 'etcd back before then: afterwards another host may get the subnet',
      repair: 'bring etcd back; this host goes on with its subnet until then',
    }),
  ];
}

const refusedMax = 5;

function judgeRefused({ rejected, node }: Status): readonly Finding[] {
  return rejected.slice(0, refusedMax).map(({ key, reason }) =>
    reason.includes('our own public address')
      ? diagnosis('error', 'address-twice', {
          found: `the lease ${key} has the address of this host, ${node.publicIp ?? '-'}`,
          cause: 'two hosts have one address, or this host was installed anew and its old lease has not ended',
          expected: 'an address of its own for each host',
          repair: `arping -D -I IFACE ${node.publicIp ?? 'ADDRESS'} finds the other host; an old lease goes with: tartan lease release SUBNET --force`,
        })
      : diagnosis('warning', 'lease-refused', {
          found: `the lease ${key} is not used: it ${reason}`,
          cause: 'another program or an operator wrote it, or the network document was changed',
          expected: 'a lease inside the network that overlaps no other',
          repair: 'tartan leases -o wide, then tartan lease release SUBNET --force',
        }),
  );
}

const soonMs = 14 * 86_400_000;

function judgeCertificate({ path, validFromMs, validToMs }: CertificateFacts, nowMs: number): readonly Finding[] {
  if (!validToMs.known) return uncheckedIf('certificate', path, validToMs);
  const days = Math.floor((validToMs.value - nowMs) / 86_400_000);
  if (nowMs < (factValue(validFromMs) ?? 0))
    return [
      diagnosis('error', 'certificate-not-yet', {
        found: `${path} is valid only from ${dateOf(factValue(validFromMs) ?? 0)}`,
        cause: 'the clock of this host is wrong, or the certificate was made for later',
        expected: 'a certificate that is valid now',
        repair: 'timedatectl',
      }),
    ];
  if (validToMs.value - nowMs > soonMs) return [];
  const isOver = validToMs.value <= nowMs;
  return [
    diagnosis(isOver ? 'error' : 'warning', isOver ? 'certificate-expired' : 'certificate-ends', {
      found: isOver
        ? `${path} expired on ${dateOf(validToMs.value)}`
        : `${path} ends in ${days} days, ${dateOf(validToMs.value)}`,
      cause: 'nobody has renewed it',
      expected: 'a certificate that is valid for weeks',
      repair: `put a new certificate in its place, then systemctl restart tartand`,
    }),
  ];
}

function dateOf(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}
