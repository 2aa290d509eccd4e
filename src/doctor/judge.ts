/** Makes every check of `tartan doctor`: facts in, a report out, the gravest finding first. Pure. */
import { apiVersion } from '../agent/status.js';
import type { Finding } from '../docker/verify/finding.js';
import { sortFindings } from '../docker/verify/judge.js';
import { groups, type Check, type Group } from './check.js';
import type { DoctorFacts } from './facts.js';
import { judgeDataPlane } from './judge-data-plane.js';
import { judgeDockerPart } from './judge-docker.js';
import { judgeKernel } from './judge-kernel.js';
import { judgeMachine } from './judge-machine.js';
import { judgeOwn } from './judge-own.js';
import { judgePeers } from './judge-peers.js';
import { judgeStore } from './judge-store.js';
import { judgeUnderlay } from './judge-underlay.js';

/** A finding as doctor tells it: every one has a cause and a next step. */
export interface Diagnosis {
  readonly id: string;
  readonly group: Group;
  readonly severity: Finding['severity'];
  readonly evidence: string;
  readonly cause: string;
  readonly expected: string;
  readonly next: string;
}

export interface DoctorReport {
  readonly apiVersion: typeof apiVersion;
  readonly kind: 'Doctor';
  /** No finding is an error. */
  readonly ok: boolean;
  readonly findings: readonly Diagnosis[];
  /** Every check, with the ids of what it found. */
  readonly checks: readonly { readonly group: Group; readonly name: string; readonly found: readonly string[] }[];
  /** What `--fix` did, one line each. */
  readonly fixed: readonly string[];
}

/** @param toolVersion the version of the program that asks */
export function judgeAll(facts: DoctorFacts, toolVersion: string, fixed: readonly string[] = []): DoctorReport {
  const checks = [
    ...judgeStore(facts),
    ...judgeUnderlay(facts),
    ...judgePeers(facts),
    ...judgeDataPlane(facts),
    ...judgeKernel(facts),
    ...judgeDockerPart(facts),
    ...judgeOwn(facts, toolVersion),
    ...judgeMachine(facts),
  ];
  const owners = new Map<Finding, Group>();
  for (const one of checks) for (const found of one.findings) owners.set(found, one.group);
  const findings = sortFindings([...owners.keys()]).map(found => diagnosisOf(found, owners.get(found) ?? 'Host'));
  return {
    apiVersion,
    kind: 'Doctor',
    ok: !findings.some(({ severity }) => severity === 'error'),
    // The daemon that is away explains what could not be asked.
    findings: [...findings].sort((a, b) => Number(b.id === 'daemon-away') - Number(a.id === 'daemon-away')),
    checks: inOrder(checks).map(({ group, good, findings: found }) => ({
      group,
      name: good,
      found: found.map(({ id }) => id),
    })),
    fixed,
  };
}

function inOrder(checks: readonly Check[]): readonly Check[] {
  return groups.flatMap(group => checks.filter(one => one.group === group));
}

function diagnosisOf(found: Finding, group: Group): Diagnosis {
  const { id, severity, expected } = found;
  return {
    id,
    group,
    severity,
    evidence: found.found,
    cause: found.cause ?? causeOf(found),
    expected,
    next: found.repair ?? nextOf(found),
  };
}

function causeOf({ severity }: Finding): string {
  return severity === 'unchecked' ? 'it could not be read' : 'Docker on this host is other than tartan plans it';
}

function nextOf({ severity }: Finding): string {
  return severity === 'unchecked' ? 'sudo tartan doctor' : 'nothing needs to be done';
}
