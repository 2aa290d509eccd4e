/**
 * tartand started again and again beside a running Docker: the same engine, the same containers, the same files, and
 * connections that never notice. TARTAN_RESTARTS=N (5) says how often; from 20 on the connections last a minute.
 */
import { readFileSync, statSync } from 'node:fs';
import { expect, test } from 'vitest';
import { DockerEngine } from '../support/docker-engine.js';
import { engineOf } from '../support/flow-bed.js';
import type { LabHost } from '../support/lab-host.js';
import { until } from '../support/tools.js';
import { Stream } from '../support/traffic.js';
import { useLab } from '../support/use-lab.js';

const restarts = Math.max(1, Number(process.env['TARTAN_RESTARTS'] ?? 5));
const streamMs = restarts < 20 ? 0 : 60_000;
const world = { letter: 'w', address: '192.0.2.23' };
const limitMs = 60_000 + streamMs + restarts * 10_000;

const lab = useLab({ nodes: ['a', 'b'], docker: true }, async opened => {
  if (!DockerEngine.available()) throw new Error('no dockerd: run test/support/setup.sh');
  await opened.spaces.openHost(world.letter, world.address, 1500);
  await opened.bringUp({ 'ip-masq': 'true' });
});

/** What must not change; the files with when and in which inode they were written. */
async function lasting(host: LabHost): Promise<unknown> {
  const written = [host.subnetFile, host.dockerEnvFile].map(path => {
    const { ino, mtimeMs } = statSync(path);
    return { path, text: readFileSync(path, 'utf8'), ino, mtimeMs };
  });
  const engine = engineOf(host);
  const container = await engine.docker('inspect', '-f', '{{.State.Pid}} {{.State.StartedAt}}', 'box');
  const rules = (await host.run('iptables-save')).replaceAll(/^#.*$|\[\d+:\d+\]/gm, '');
  return { written, dockerd: engine.daemonPid, container, rules, datapath: await host.datapathPid() };
}

test(
  `${restarts} starts of tartand: nothing else is started, written or broken`,
  async () => {
    const [a, b] = [lab().node('a'), lab().node('b')];
    const to = (letter: string, address: string, port: number): Promise<Stream> =>
      Stream.open(lab().spaces, { from: a.containerNamespace, to: letter, address, port, bytesPerSecond: 4_000_000 });
    const streams = [
      await to(b.containerNamespace, b.containerAddress, 7002),
      await to(world.letter, world.address, 7003),
    ];
    const before = await lasting(a);
    const begin = performance.now();
    for (let i = 1; i <= restarts; i++) {
      // Every second one by surprise.
      await a.stopDaemon(i % 2 === 0 ? 'SIGKILL' : 'SIGTERM');
      await a.startDaemon({ 'ip-masq': 'true' }).waitForEvent('daemon.ready');
      await lab().waitForRoutes();
      expect(await lasting(a), `after start ${i}`).toEqual(before);
      await until('time for the next', () => performance.now() - begin >= (streamMs * i) / restarts, limitMs);
    }
    const reports = await Promise.all(streams.map(stream => stream.stop()));
    // To the world as the host, which masquerades.
    for (const [i, source] of [a.containerAddress, a.address].entries()) {
      expect(reports[i]?.received).toEqual({ ...reports[i]?.sent, source });
      expect(reports[i]?.received.bytes).toBeGreaterThan(1_000_000);
      expect(reports[i]?.longestGapMs).toBeLessThan(2000);
    }
  },
  limitMs,
);
