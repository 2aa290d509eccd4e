/**
 * Host x is as an unprivileged container of LXC or Proxmox: its root is not this machine's, /dev/net/tun was passed in,
 * and /proc/uptime counts from the start of the container.
 */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'x'], unprivileged: ['x'] });

test('fault B8: with root of a user namespace all starts, and what it may not have is a warning', async () => {
  // With a long one the deadline may lie after the machine's own time, whatever the container's.
  await lab().bringUp({ 'lease-ttl': '15' });
  const { datapath, problems, ready } = await lab().node('x').status();
  expect({ ready, problems }).toEqual({ ready: true, problems: [] });
  expect(datapath?.kernel).toMatchObject({
    wanted: 'auto',
    state: 'unavailable',
    reason: expect.stringContaining('EPERM'),
  });
  const warnings = datapath?.warnings ?? [];
  // A peer that knows this host already may ask it before its own lease is known here.
  const expected = /flows that send little|the UDP socket has buffers|which no lease names/;
  expect(warnings.filter(text => !expected.test(text))).toEqual([]);
  expect(warnings.join()).toMatch(/flows that send little wait .*CAP_BPF/);
  const link = await lab().node('x').run('ip', '-j', 'link', 'show', 'tartan0');
  expect(JSON.parse(link)).toMatchObject([{ txqlen: 512 }]);
  const uid = /^Uid:\t(\d+)/m.exec(readFileSync(`/proc/${datapath?.pid}/status`, 'utf8'))?.[1];
  expect(Number(uid)).toBeGreaterThan(100_000);
});

test('fault B7: traffic passes although /proc/uptime is that of the container', async () => {
  const [a, x] = [lab().node('a'), lab().node('x')];
  expect(await x.run('cat', '/proc/uptime')).toBe('7.00 7.00\n');
  await until('traffic', () => x.pingFromContainer(a.containerAddress), 5_000);
  expect(await a.pingFromContainer(x.containerAddress)).toBe(true);
  const counters = await x.counters();
  expect([counters['tx_orphaned'], counters['rx_orphaned']]).toEqual([0, 0]);
});
