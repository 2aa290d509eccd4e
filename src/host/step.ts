/** One change to the host, with the line that stands for it in logs and tests. Every step is tried. */
import { errnoOf, messageOf } from '../lib/errors.js';

export interface Step {
  /** `route add 10.5.0.0/16 metric 0 dev tartan0` */
  readonly text: string;
  run(): Promise<void>;
}

export interface StepResults {
  readonly changes: string[];
  readonly failures: string[];
}

/** A step that cannot be made, with the reason it gives. */
export function impossible(text: string, reason: string): Step {
  return {
    text,
    run: () => Promise.reject(new Error(reason)),
  };
}

/** Rejects with the signal's reason when aborted, between two steps. */
export async function runSteps(steps: readonly Step[], results: StepResults, signal: AbortSignal): Promise<void> {
  for (const step of steps) {
    signal.throwIfAborted();
    try {
      await step.run();
      results.changes.push(step.text);
    } catch (error) {
      results.failures.push(`${step.text}: ${explained(error)}`);
    }
  }
}

/** Something that is no step, such as reading what is there: its failure is one more, and the rest goes on. */
export async function attempt(what: string, results: StepResults, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    results.failures.push(`${what}: ${explained(error)}`);
  }
}

function explained(error: unknown): string {
  const code = errnoOf(error);
  return code === 'EPERM' || code === 'EACCES' ? `${messageOf(error)}; CAP_NET_ADMIN is needed` : messageOf(error);
}
