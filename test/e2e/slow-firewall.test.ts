/** The programs of the packet filter hang, or somebody undoes what they do: peers are followed all the same. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { keyPrefix } from '../support/lab.js';
import { findTool, until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a'] }, async opened => {
  const host = opened.node('a');
  const path = join(opened.spaces.directory, 'bin');
  mkdirSync(path);
  for (const name of ['iptables-save', 'nft']) {
    const hang = `[ ! -e ${flagOf(opened.spaces.directory)} ] || sleep 15`;
    writeFileSync(join(path, name), `#!/bin/sh\n${hang}\nexec ${findTool(name)} "$@"\n`, { mode: 0o755 });
  }
  await host.startDaemon({}, { PATH: `${path}:${process.env['PATH'] ?? ''}` }).waitForEvent('daemon.ready');
});

function flagOf(directory: string): string {
  return join(directory, 'hang');
}

test('fault C7: a new peer has its route while iptables-save and nft hang, which is told; then all is well again', async () => {
  const host = lab().node('a');
  const flag = flagOf(lab().spaces.directory);
  const generation = (await host.status()).datapath?.generationPublished ?? 0;
  writeFileSync(flag, '');
  // An event of the host starts a pass, which hangs.
  await host.run('ip', 'link', 'set', 'tartan0', 'mtu', '1400');
  await delay(300);
  const began = Date.now();
  await lab().etcd.put(`${keyPrefix}/subnets/10.5.200.0-24`, '{"PublicIP":"192.0.2.200"}');
  await until(
    'the data process uses the next table',
    async () => ((await host.status()).datapath?.generationAdopted ?? 0) > generation,
    20_000,
  );
  const ms = Date.now() - began;
  process.stdout.write(`a table with the new peer ${ms} ms after etcdctl was started\n`);
  expect(ms).toBeLessThan(2000);
  const names = /iptables-save: no answer in 5 s, the program was ended/;
  await until('the problem', async () => (await host.status()).problems.some(text => names.test(text)));
  expect((await host.status()).peers).toHaveLength(1);
  rmSync(flag);
  await until('no problem', async () => (await host.status()).problems.length === 0, 30_000);
});

test('fault C7: a rival removes our first rule every 50 ms: told with place and rival, few lines of log', async () => {
  const host = lab().node('a');
  const script = join(lab().spaces.directory, 'rival.sh');
  const flag = join(lab().spaces.directory, 'rival');
  writeFileSync(flag, '');
  writeFileSync(script, `while [ -e ${flag} ]; do iptables -w -D DOCKER-USER 1 2>/dev/null; sleep 0.05; done\n`);
  const repairs = (): number =>
    host.daemon.events('plan.applied').filter(({ changes }) => JSON.stringify(changes ?? '').includes('DOCKER-USER'))
      .length;
  const before = repairs();
  const rival = host.run('timeout', '60', 'sh', script);
  await until('told', async () => (await host.status()).problems.some(text => text.startsWith('rule_fight')));
  // It is told, and nothing is repaired meanwhile.
  await delay(3000);
  rmSync(flag);
  await rival;
  const [told] = (await host.status()).problems;
  expect(told).toMatch(/^rule_fight iptables filter DOCKER-USER: another program \(iptables/);
  expect(repairs() - before).toBeGreaterThan(0);
  expect(repairs() - before).toBeLessThanOrEqual(12);
  expect(host.daemon.events('host.conflict').filter(({ msg }) => String(msg).startsWith('rule_fight'))).toHaveLength(1);
});
