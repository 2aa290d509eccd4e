/** The kernel engine's programs judge random packets as the reference of the rules does; a million in `test:long -- kernel`. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { root } from '../support/tools.js';

test('100,000 random packets end in the counters of the reference', { timeout: 180_000 }, async () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  const script = join(root, 'test/support/kernel-rules.sh');
  const { stdout } = await promisify(execFile)('bash', [script, '100000', `${seed}`]).catch((error: Error) => {
    const { stdout: said = '' } = error as { stdout?: string };
    throw new Error(`seed ${seed}: ${error.message}\n${said}`, { cause: error });
  });
  expect(stdout).toMatch(/^kernel-rules: \d+ passed, 0 failed$/m);
  // Each of the programs' own counters was reached.
  for (const name of ['rx_ok', 'rx_ttl', 'rx_bad_frag', 'rx_orphaned', 'tx_ok', 'next'])
    expect(stdout).toMatch(new RegExp(`^${name} [1-9]`, 'm'));
});
