/**
 * Orders the steps of a pass over all kinds of filters: steps that add come first, and nothing is removed from one kind
 * while another refused what replaces it.
 */
import type { FirewallPlan } from '../../model/plan.js';
import type { Step } from '../step.js';

/** What one kind of filter is to hold. */
export interface WantedRules {
  readonly parts: readonly FirewallPlan[];
  /** See FirewallContext. */
  readonly keeps: boolean;
}

export interface FirewallSteps {
  readonly steps: readonly Step[];
  /** Steps that only remove. */
  readonly removals: readonly Step[];
  readonly conflicts: readonly string[];
}

export const nothingToDo: FirewallSteps = { steps: [], removals: [], conflicts: [] };

export function addBeforeRemove(kinds: readonly FirewallSteps[]): readonly Step[] {
  const refused = new Set<FirewallSteps>();
  const additions = kinds.flatMap(kind =>
    kind.steps.map(step => ({
      ...step,
      run: () =>
        step.run().catch((error: unknown) => {
          refused.add(kind);
          throw error;
        }),
    })),
  );
  const removals = kinds.flatMap(kind =>
    kind.removals.map(step => ({
      ...step,
      run: async () => {
        if ([...refused].some(other => other !== kind)) throw new Error('waits for the rules that replace these');
        await step.run();
      },
    })),
  );
  return [...additions, ...removals];
}
