/** One difference between what should be and what is, with the one thing to do about it. */
import type { Fact } from '../../lib/fact.js';

export interface Finding {
  /** Stable: for scripts and documents. */
  readonly id: string;
  /**
   * `error`: traffic of containers suffers, or will at Docker's next start; `warning`: it may; `note`: worth knowing;
   * `unchecked`: it could not be looked at.
   */
  readonly severity: 'error' | 'warning' | 'note' | 'unchecked';
  readonly found: string;
  readonly expected: string;
  /** A command, or an edit where no command does it. */
  readonly repair: string | null;
}

type FindingTexts = readonly [found: string, expected: string, repair?: string];

export function finding(severity: Finding['severity'], id: string, [found, expected, repair]: FindingTexts): Finding {
  return { id, severity, found, expected, repair: repair ?? null };
}

/** A finding for a fact that could not be had, and nothing for one that is known. */
export function uncheckedFact(id: string, what: string, fact: Fact<unknown>): readonly Finding[] {
  return fact.known ? [] : [finding('unchecked', id, [`${what}: ${fact.why}`, 'to be readable, as root it mostly is'])];
}

export const restartDocker = 'systemctl restart docker';

/** For the one command of a repair: a name of Docker's own form, in a shell as it is. */
export function shellName(name: string): string {
  return /^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(name) ? name : 'NAME';
}

/** At most five by name. */
export function listed(names: readonly string[]): string {
  return names.length <= 5 ? names.join(', ') : `${names.slice(0, 5).join(', ')} and ${names.length - 5} more`;
}
