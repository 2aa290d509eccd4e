/** A finding names one difference between what should be and what is, and the one repair. */
import type { Fact } from '../../lib/fact.js';

export interface Finding {
  /** Scripts and documents rely on it: it never changes. */
  readonly id: string;
  /**
   * `error`: traffic of containers suffers, or will at Docker's next start; `warning`: it may suffer; `note`: worth
   * knowing; `unchecked`: the fact could not be read.
   */
  readonly severity: 'error' | 'warning' | 'note' | 'unchecked';
  readonly found: string;
  readonly expected: string;
  /** A command, or an edit where no command does it. */
  readonly repair: string | null;
  /** Whose doing it is; the checks of Docker leave it to `expected`. */
  readonly cause?: string;
}

type FindingTexts = readonly [found: string, expected: string, repair?: string];

export function finding(severity: Finding['severity'], id: string, [found, expected, repair]: FindingTexts): Finding {
  return { id, severity, found, expected, repair: repair ?? null };
}

/** Returns a finding for a fact that is unknown, and nothing for one that is known. */
export function uncheckedFact(id: string, what: string, fact: Fact<unknown>): readonly Finding[] {
  return fact.known ? [] : [finding('unchecked', id, [`${what}: ${fact.why}`, 'to be readable, as root it mostly is'])];
}

export const restartDocker = 'systemctl restart docker';
export const dropInPlace = '/etc/systemd/system/docker.service.d/tartan.conf';
export const removeDropIn = `rm ${dropInPlace} && systemctl daemon-reload && ${restartDocker}`;

/** Returns a name that a shell takes as it is, for the command of a repair: one of Docker's own form. */
export function shellName(name: string): string {
  return /^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(name) ? name : 'NAME';
}

/** Lists at most five by name. */
export function listed(names: readonly string[]): string {
  return names.length <= 5 ? names.join(', ') : `${names.slice(0, 5).join(', ')} and ${names.length - 5} more`;
}
