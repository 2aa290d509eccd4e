/** Routes and address of an earlier version, which carried another protocol number, are replaced under traffic. */
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { LabHost } from '../support/lab-host.js';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const rounds = Number(process.env['TARTAN_ROUTE_ROUNDS'] ?? 8);
const lab = useLab({ nodes: ['a', 'b'] }, async opened => {
  await opened.bringUp();
  // A flow that never pauses may lose its order when it changes its engine: it is the kernel's from the start.
  const [a, b] = [opened.node('a'), opened.node('b')];
  await a.untilByKernel(b);
  await b.untilByKernel(a);
  // The file of the pairs is written each second.
  await delay(1500);
});

/** What an earlier version has made stands in the place of ours: one message to the kernel, so a route is always there. */
async function makeEarlier(host: LabHost): Promise<void> {
  await host.run('ip', 'route', 'replace', '10.5.0.0/16', 'dev', 'tartan0', 'proto', '84');
  await host.run('ip', 'route', 'replace', 'unreachable', '10.5.0.0/16', 'metric', '4096', 'proto', '84');
}

async function routesOf(host: LabHost): Promise<readonly string[]> {
  const text = await host.run('ip', '-d', 'route', 'show', 'root', '10.5.0.0/16');
  return text.split('\n').filter(line => line.includes('10.5.0.0/16'));
}

/** Every route of the network is ours, of this version. */
async function untilReplaced(host: LabHost): Promise<void> {
  await until('routes of this version', async () => {
    const routes = await routesOf(host);
    return routes.length === 2 && routes.every(line => /proto 167\b/.test(line));
  });
}

test('fault U14: an upgrade replaces the routes of an earlier version, and none of 1000 packets a second is lost', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const flows = [await lab().flow(a, b), await lab().flow(b, a)];
  await a.stopDaemon();
  await makeEarlier(a);
  expect(await routesOf(a)).toEqual([expect.stringMatching(/proto (84|ovn)/), expect.stringMatching(/proto (84|ovn)/)]);
  await a.startDaemon().waitForEvent('daemon.ready');
  await untilReplaced(a);
  // The running daemon hears of each change and does it again: one gap of a route would be short.
  for (let round = 1; round < rounds; round++) {
    await makeEarlier(a);
    await untilReplaced(a);
  }
  const reports = [];
  for (const flow of flows) reports.push(await flow.stop());
  for (const { sent, lost, duplicates, reordered } of reports) {
    expect({ lost, duplicates, reordered }).toEqual({ lost: 0, duplicates: 0, reordered: 0 });
    expect(sent).toBeGreaterThan(1000);
  }
});
