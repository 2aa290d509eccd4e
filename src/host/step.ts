/** A step is one change of the host, with the line that names it in logs and tests. A pass attempts every step. */
import { errnoOf, messageOf } from '../lib/errors.js';

export interface Step {
  /** `route add 10.5.0.0/16 metric 0 dev tartan0` */
  readonly text: string;
  /** Where rules are put, such as `iptables filter DOCKER-USER`; absent for a step that puts none. */
  readonly place?: string;
  run(): Promise<void>;
}

export interface StepResults {
  readonly changes: string[];
  readonly failures: string[];
}

/** Returns a step that fails with the given reason. */
export function impossible(text: string, reason: string): Step {
  return {
    text,
    run: () => Promise.reject(new Error(reason)),
  };
}

/** Runs the steps in order. When the signal is aborted between two steps, it rejects with the signal's reason. */
export async function runSteps(steps: readonly Step[], results: StepResults, signal: AbortSignal): Promise<void> {
  for (const step of steps) {
    signal.throwIfAborted();
    try {
      await step.run();
      results.changes.push(step.text);
    } catch (error) {
      results.failures.push(`${step.text}: ${withHint(error)}`);
    }
  }
}

/** Runs work that is no step, such as reading the host. Its failure is added to the others, and the pass goes on. */
export async function attempt(what: string, results: StepResults, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    results.failures.push(`${what}: ${withHint(error)}`);
  }
}

function withHint(error: unknown): string {
  const code = errnoOf(error);
  return code === 'EPERM' || code === 'EACCES' ? `${messageOf(error)}; CAP_NET_ADMIN is needed` : messageOf(error);
}
