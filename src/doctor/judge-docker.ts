/** Judges Docker as `tartan docker verify` does. A host without Docker is no error here: tartan also serves others. */
import type { Finding } from '../docker/verify/finding.js';
import { judgeDocker } from '../docker/verify/judge.js';
import { factValue } from '../lib/fact.js';
import { check, uncheckedIf, type Check } from './check.js';
import type { DoctorFacts } from './facts.js';
import { problemsAt } from './judge-problems.js';

/** What the judges of Docker name themselves when they see it, beside what the daemon says. */
const settingsIds = ['settings-conflict', 'bridge-conflict', 'daemon-json-broken', 'daemon-json-value'];
/** Findings that are none where nobody uses Docker. */
const absentIds = ['docker-absent', 'docker-stopped'];

export function judgeDockerPart({ status: fact, docker }: DoctorFacts): readonly Check[] {
  const status = factValue(fact);
  const told = status ? problemsAt(status, ['docker']) : [];
  if (!docker.known) {
    // Before there is a lease nothing is planned for Docker; the daemon says why there is none.
    const due = status?.phase === 'ready' || told.length > 0;
    return [
      check('Docker', 'nothing is planned yet', due ? [...told, ...uncheckedIf('docker', 'Docker', docker)] : told),
    ];
  }
  const { plan, facts } = docker.value;
  const runs = facts.engine.kind === 'answers';
  const findings = judgeDocker(plan, facts).map(one => withoutDocker(one, factValue(facts.unit) !== undefined));
  const isNamed = findings.some(({ id, severity }) => severity === 'error' && settingsIds.includes(id));
  const version = facts.engine.kind === 'answers' ? facts.engine.state.version : '';
  return [
    check('Docker', runs ? `Docker ${version} is as planned` : 'no Docker runs here', [
      ...(isNamed ? [] : told),
      ...findings,
    ]),
  ];
}

/** @param hasUnit systemd knows Docker's unit, so that it is meant to run */
function withoutDocker(found: Finding, hasUnit: boolean): Finding {
  // A manager of firewalls is no fault; rules of it that drop something are found as what they are.
  if (found.id === 'firewall-manager') return { ...found, severity: 'note' };
  return absentIds.includes(found.id) ? { ...found, severity: hasUnit ? 'warning' : 'note' } : found;
}
