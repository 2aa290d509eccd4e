/** fault C16: every child process is started in a file that gives it an environment of its own. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { runCommand } from '../../src/host/firewall/command.js';
import { root } from '../support/tools.js';

it('fault C16: no call that starts a program leaves its environment out', () => {
  const files = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' }).filter(name =>
    name.endsWith('.ts'),
  );
  const starters = files.filter(name =>
    /^import (?!type ).*'node:child_process'/m.test(readFileSync(join(root, 'src', name), 'utf8')),
  );
  expect(starters.length).toBeGreaterThan(2);
  for (const name of starters) {
    const text = readFileSync(join(root, 'src', name), 'utf8');
    const started = /(?:= |return |await )(?:(?:spawn|fork|exec|execFile)(?:Sync)?|promisify\(execFile\))\(/g;
    const calls = text.match(started) ?? [];
    expect(calls.length).toBeGreaterThan(0);
    const environments = text.match(/\benv(?::|,| =)/g) ?? [];
    expect({ name, missing: Math.max(0, calls.length - environments.length) }).toEqual({ name, missing: 0 });
  }
});

it('fault C16: a program of the firewall gets nothing of our environment', async () => {
  process.env['TARTAN_ETCD_PASSWORD'] = 'secret';
  try {
    const text = await runCommand('env', [], '', AbortSignal.timeout(5000));
    expect(text.split('\n').map(line => line.replace(/=.*/, ''))).toEqual(expect.arrayContaining(['PATH', 'LC_ALL']));
    expect(text).not.toMatch(/secret|TARTAN/);
  } finally {
    delete process.env['TARTAN_ETCD_PASSWORD'];
  }
});
