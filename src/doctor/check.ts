/** A check is one question that doctor asks of the facts: what is good about the answer, or what it found. */
import type { Status } from '../agent/status.js';
import type { Finding } from '../docker/verify/finding.js';
import type { Fact } from '../lib/fact.js';

export const groups = ['Store', 'Underlay', 'Peers', 'Data plane', 'Docker', 'Host'] as const;
export type Group = (typeof groups)[number];

export interface Check {
  readonly group: Group;
  /** What is well, in a few words; shown where nothing was found. */
  readonly good: string;
  readonly findings: readonly Finding[];
}

export function check(group: Group, good: string, findings: readonly Finding[]): Check {
  return { group, good, findings };
}

export interface FindingParts {
  /** What was seen. */
  readonly found: string;
  readonly cause: string;
  readonly expected: string;
  /** The one next step. */
  readonly repair: string;
}

export function diagnosis(severity: Finding['severity'], id: string, parts: FindingParts): Finding {
  return { id, severity, ...parts };
}

/** A fact that could not be had; nothing for one that is known. */
export function uncheckedIf(id: string, what: string, fact: Fact<unknown>): readonly Finding[] {
  if (fact.known) return [];
  return [
    diagnosis('unchecked', id, {
      found: `${what}: ${fact.why}`,
      cause: 'it could not be read',
      expected: 'to be readable',
      repair: 'sudo tartan doctor',
    }),
  ];
}

/** Bytes that the tunnel adds to a packet: with the engine kernel 8 more than with user space alone. */
export function tunnelOverhead({ datapath }: Status): number {
  return (datapath?.kernel?.wanted ?? 'user') === 'user' ? 28 : 36;
}
