/** A host with a hundred thousand routes and five thousand rules of others: what passes cost, and what rings. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { parsePrefix } from '../../src/model/ip.js';
import type { HostPlan } from '../../src/model/plan.js';
import { planOf } from '../support/firewall-texts.js';
import { HostLab, type RemoteHost } from '../support/host-lab.js';

const count = 100_000;
const network = parsePrefix('10.5.0.0/16');
let lab: HostLab;
let host: RemoteHost;
let plan: HostPlan;

/** `198.18.0.0/32` and on, as a table of BGP would be. */
function routeLines(verb: string, from: number, to: number): string {
  const lines: string[] = [];
  for (let i = from; i < to; i++)
    lines.push(`route ${verb} ${20 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}.0/24 via 192.0.2.254 proto bird`);
  return lines.join('\n');
}

function batch(text: string): void {
  const file = join(lab.directory, 'batch');
  writeFileSync(file, `${text}\n`);
  lab.run(`ip -batch ${file}`);
}

beforeAll(async () => {
  lab = await HostLab.open();
  lab.addUnderlay();
  lab.run('ip tuntap add dev tartan0 mode tun');
  batch(routeLines('add', 0, count));
  const rules = Array.from({ length: 5_000 }, (_, i) => `-A INPUT -s 203.0.${i >> 8}.${i & 255}/32 -j DROP`);
  lab.run('iptables-restore --noflush', ['*filter', ...rules, 'COMMIT', ''].join('\n'));
  host = await lab.host();
  plan = {
    ...planOf('nft'),
    links: [{ name: 'tartan0', make: { kind: 'tun' }, mtu: 1472, address: parsePrefix('10.5.1.0/32') }],
    routes: [
      { kind: 'unreachable', destination: network, metric: 4096 },
      { kind: 'device', destination: network, device: 'tartan0', metric: 0 },
    ],
  };
});
afterAll(() => lab.close());

async function msOf(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

test('fault C17: a pass that no event asked for reads none of it, and routes of others ring for nobody', async () => {
  await host.apply('default', plan);
  // What our own changes of routes rang for is read once more; rules rest.
  await host.apply('default', plan, { heardOnly: true });
  const whole = await msOf(() => host.apply('default', plan));
  const heard: number[] = [];
  for (let pass = 0; pass < 5; pass++) heard.push(await msOf(() => host.apply('default', plan, { heardOnly: true })));
  const least = Math.min(...heard);
  process.stdout.write(
    `${count} routes and 5000 rules: ${Math.round(whole)} ms for all, ${least.toFixed(1)} ms for what was heard\n`,
  );
  expect(least).toBeLessThan(whole / 5);

  await vi.waitFor(async () => {
    const before = host.rings;
    // Longer than what follows a reading of the rules rests.
    await new Promise(resolve => setTimeout(resolve, 4_200));
    expect(host.rings).toBe(before);
  }, 20_000);
  const before = host.rings;
  // Few enough for the socket's buffer: lost events ring for whatever they were.
  batch(routeLines('del', 0, 200));
  batch(routeLines('add', 0, 200));
  await host.interfaces();
  expect(host.rings).toBe(before);
  lab.run('ip route add blackhole 10.5.77.0/24');
  await vi.waitFor(() => expect(host.rings).toBeGreaterThan(before), { timeout: 5_000 });
  expect((await host.apply('default', plan, { heardOnly: true })).conflicts).toHaveLength(1);
});
