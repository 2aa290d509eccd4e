/**
 * The four suites. `unit` runs its files side by side, `contract` two and `e2e` three at a time, because most of what they do
 * is waiting; `integration` loads the machine's kernel and its two cores, one file after another. `long` is what only a
 * part of long.sh prepares.
 */
import { defineConfig } from 'vitest/config';

/** For a machine that is slow, as the guests of test/support/guest.ts are. */
const patience = Number(process.env['TARTAN_PATIENCE'] ?? 1);

export default defineConfig({
  test: {
    reporters: [['default', { summary: false }], './test/support/reporter.ts'],
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], pool: 'forks', testTimeout: 10_000 * patience } },
      {
        test: {
          name: 'contract',
          include: ['test/contract/**/*.test.ts'],
          pool: 'forks',
          maxWorkers: 2,
          testTimeout: 60_000 * patience,
          hookTimeout: 60_000 * patience,
        },
      },
      {
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          pool: 'forks',
          fileParallelism: false,
          maxWorkers: 1,
          testTimeout: 60_000 * patience,
          hookTimeout: 60_000 * patience,
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          pool: 'forks',
          maxWorkers: 3,
          testTimeout: 90_000 * patience,
          hookTimeout: 90_000 * patience,
        },
      },
      {
        test: {
          name: 'long',
          include: ['test/long/**/*.test.ts'],
          pool: 'forks',
          fileParallelism: false,
          maxWorkers: 1,
          testTimeout: 120_000 * patience,
          hookTimeout: 120_000 * patience,
        },
      },
    ],
  },
});
