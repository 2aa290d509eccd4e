import { describe, expect, test } from 'vitest';
import { Repairs } from '../../src/host/firewall/repairs.js';
import { runSteps, type Step } from '../../src/host/step.js';

const { signal } = new AbortController();
let now = 0;

/** A rival undoes our repair every 50 ms, and each time a pass sees it. @returns when repairs were made */
async function fight(repairs: Repairs, ms: number, steps: readonly Step[]): Promise<readonly number[]> {
  const made: number[] = [];
  for (const until = now + ms; now < until; now += 50) {
    const results = { changes: [], failures: [] };
    await runSteps(repairs.limit(steps, 'iptables of rival.sh'), results, signal);
    made.push(...results.changes.map(() => now));
  }
  return made;
}

const placed: Step = { text: 'put back', place: 'iptables filter DOCKER-USER', run: async () => {} };

describe('fault C7: repairs', () => {
  test('the first come at once, then one a minute, told once with table, chain and rival', async () => {
    now = 0;
    const repairs = new Repairs(() => now);
    const made = await fight(repairs, 600_000, [placed]);
    expect(made.slice(0, 10)).toEqual([0, 50, 100, 150, 200, 250, 300, 350, 400, 450]);
    expect(made.length).toBeLessThanOrEqual(10 + 10);
    expect(made.length).toBeGreaterThanOrEqual(10 + 8);
    expect(repairs.conflicts).toEqual([
      expect.stringMatching(
        /^rule_fight iptables filter DOCKER-USER: another program \(iptables of rival\.sh\) removes/,
      ),
    ]);
    expect(repairs.fighting).toBe(true);
  });

  test('a fight in one place holds nothing back in another one, and is over when nothing was undone for minutes', async () => {
    now = 0;
    const repairs = new Repairs(() => now);
    await fight(repairs, 10_000, [placed]);
    const other = { ...placed, place: 'iptables nat POSTROUTING' };
    expect(await fight(repairs, 50, [placed, other])).toHaveLength(1);
    now += 130_000;
    expect(repairs.limit([], undefined)).toEqual([]);
    expect([repairs.conflicts, repairs.fighting]).toEqual([[], false]);
    expect(await fight(repairs, 50, [placed])).toHaveLength(1);
  });

  test('what was refused counts as no repair, and what has no place is never held back', async () => {
    now = 0;
    const repairs = new Repairs(() => now);
    const refused: Step = { ...placed, run: () => Promise.reject(new Error('no')) };
    await fight(repairs, 1000, [refused]);
    expect(repairs.conflicts).toEqual([]);
    expect(await fight(repairs, 1000, [{ text: 'other', run: async () => {} }])).toHaveLength(20);
  });
});
