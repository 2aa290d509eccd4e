/** Pods of CNI on the lease: host a has no Docker and pods by flannel's plugin, host b has Docker. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Finding } from '../../src/docker/verify/finding.js';
import { parseIpv4, parsePrefix, prefixContains } from '../../src/model/ip.js';
import { hasCni, Pod } from '../support/cni.js';
import { askedEngine } from '../support/docker-engine.js';
import { engineOf } from '../support/flow-bed.js';
import { run } from '../support/tools.js';
import { transfer } from '../support/traffic.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: hasCni ? ['a', 'b'] : [], docker: askedEngine() }, async opened => {
  for (const host of opened.hosts) await host.startDaemon().waitForEvent('daemon.ready');
  await Promise.all([opened.hosts.find(({ letter }) => letter === 'b')?.startEngine(), opened.waitForRoutes()]);
});

test.skipIf(!hasCni)(
  'a pod and a container of Docker reach each other with their own addresses, and DEL cleans up',
  async () => {
    const [a, b] = [lab().node('a'), lab().node('b')];
    const before = await a.run('iptables-save', '-t', 'nat');
    const pod = await Pod.open(a, 'p');
    const [given = ''] = await pod.add();
    const address = given.replace(/\/24$/, '');
    expect(prefixContains(parsePrefix(a.subnet), parseIpv4(address))).toBe(true);
    expect(await a.run('ip', '-br', '-4', 'address', 'show', 'cni0')).toContain(a.subnet.replace('.0/', '.1/'));
    expect(await run(lab().spaces.inside('p', ['cat', '/sys/class/net/eth0/mtu']))).toBe('1464\n');
    const ends = [
      { letter: 'p', address },
      { letter: b.containerNamespace, address: b.containerAddress },
    ];
    for (const [from, to] of [ends, [...ends].reverse()]) {
      const where = { from: from?.letter ?? '', to: to?.letter ?? '', address: to?.address ?? '', port: 7003 };
      const { sent, received } = await transfer(lab().spaces, { ...where, bytes: 1_000_000 });
      expect(received).toEqual({ ...sent, source: from?.address });
    }
    await pod.remove();
    const kept = join(lab().spaces.directory, 'a/pods/cni/networks/tartan');
    expect(readdirSync(kept).filter(name => name.includes(address))).toEqual([]);
    expect(await a.run('bridge', 'link', 'show', 'master', 'cni0')).toBe('');
    expect((await a.run('iptables-save', '-t', 'nat')).match(/^-A CNI-[0-9a-f]{24}/gm) ?? []).toEqual([]);
    expect(before).not.toContain('CNI-');
  },
);

test.skipIf(!hasCni)('docker0 and cni0 on one lease are found, and named', async () => {
  const b = lab().node('b');
  const pod = await Pod.open(b, 'q');
  await pod.add();
  const { stdout } = await b.tool('docker', 'verify', '-o', 'json', '--docker-host', engineOf(b).url);
  const { findings } = JSON.parse(stdout) as { findings: Finding[] };
  expect(findings.filter(({ severity }) => severity === 'error')).toMatchObject([
    { id: 'docker0-shared', found: expect.stringMatching(/^docker0 and cni0 \(10\.5\.\d+\.1\/24\) have one subnet/) },
  ]);
  await pod.remove();
});
