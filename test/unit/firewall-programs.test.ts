/** The programs of the packet filter that hang. */
import { expect, test, vi } from 'vitest';
import { Hang, runCommand, type RunCommand } from '../../src/host/firewall/command.js';
import { Firewall } from '../../src/host/firewall/firewall.js';
import { silentLog } from '../../src/lib/log.js';
import { plan } from '../support/firewall-texts.js';

test('fault C7: an nft that hangs is told also where it is not needed', async () => {
  const run: RunCommand = async file => {
    if (file === 'nft') throw new Hang('nft: no answer in 5 s, the program was ended');
    return '';
  };
  const firewall = new Firewall({ log: silentLog, run, legacyTablesFile: '/nonexistent' });
  const { conflicts } = await firewall.steps([plan], new AbortController().signal);
  expect(conflicts).toEqual(['nft: no answer in 5 s, the program was ended']);
});

test('fault C7: a program that gives no answer is a hang, one that fails is none', async () => {
  const { signal } = new AbortController();
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  try {
    const hanging = expect(runCommand('sleep', ['30'], '', signal)).rejects.toBeInstanceOf(Hang);
    vi.advanceTimersByTime(5_000);
    await hanging;
  } finally {
    vi.useRealTimers();
  }
  // It has ended.
  expect(await runCommand('sleep', ['0'], '', signal)).toBe('');
  await expect(runCommand('false', [], '', signal)).rejects.not.toBeInstanceOf(Hang);
});

test('fault C7: a program that hangs is ended with what it started, and the next call waits for nobody', async () => {
  const stop = new AbortController();
  const hanging = runCommand('sh', ['-c', 'sleep 30'], '', stop.signal);
  const began = performance.now();
  setTimeout(() => stop.abort(new Error('stopped')), 50);
  await expect(hanging).rejects.toThrow('stopped');
  expect(performance.now() - began).toBeLessThan(5_000);
  await vi.waitFor(async () =>
    expect(await runCommand('sh', ['-c', 'echo yes'], '', new AbortController().signal)).toBe('yes\n'),
  );
});
