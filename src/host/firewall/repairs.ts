/**
 * Limits how often rules of ours are put back in one place. A flushed rule comes back at once. Where somebody removes
 * it again and again both would only fight: after a few repairs it is put back once a minute, and the fight is told.
 */
import type { Step } from '../step.js';

const limits = { count: 10, withinMs: 60_000, quietMs: 120_000 } as const;

interface Place {
  /** When the last repairs were made, the newest last. */
  repairs: readonly number[];
  /** What is told of the fight, while there is one. */
  fight: string | undefined;
}

export class Repairs {
  readonly #now: () => number;
  readonly #places = new Map<string, Place>();

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Somebody undoes our repairs. */
  get fighting(): boolean {
    return [...this.#places.values()].some(({ fight }) => fight !== undefined);
  }

  get conflicts(): readonly string[] {
    return [...this.#places.values()].flatMap(({ fight }) => fight ?? []);
  }

  /** @returns the steps that are due now; `rival` names who removed rules last, if that is known */
  limit(steps: readonly Step[], rival: string | undefined): readonly Step[] {
    const now = this.#now();
    for (const [name, place] of this.#places)
      if (now - (place.repairs.at(-1) ?? 0) > limits.quietMs) this.#places.delete(name);
    return steps.flatMap(step => {
      const { place } = step;
      if (place === undefined) return [step];
      return this.#isDue(place, rival, now) ? [this.#counted(step, place)] : [];
    });
  }

  #isDue(name: string, rival: string | undefined, now: number): boolean {
    const place = this.#places.get(name);
    if (!place) return true;
    const recent = place.repairs.filter(atMs => now - atMs < limits.withinMs);
    if (recent.length >= limits.count || (place.fight !== undefined && recent.length > 0)) {
      place.fight ??= describe(name, rival);
      return false;
    }
    return true;
  }

  #counted(step: Step, name: string): Step {
    return {
      ...step,
      run: async () => {
        await step.run();
        const place = this.#places.get(name) ?? { repairs: [], fight: undefined };
        place.repairs = [...place.repairs, this.#now()].slice(-limits.count);
        this.#places.set(name, place);
      },
    };
  }
}

function describe(place: string, rival: string | undefined): string {
  const who = rival === undefined ? 'another program' : `another program (${rival})`;
  return `rule_fight ${place}: ${who} removes our rules there again and again, they are put back once a minute: let it keep rules with the comment "tartan"`;
}
