/** Either process may die under traffic: what was lost, and what is the same afterwards. */
import { expect, test } from 'vitest';
import { isAlive } from '../support/lab-host.js';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b'] }, opened => opened.bringUp());

test.each(['SIGKILL', 'SIGTERM'] as const)('%s of tartand at 1000 packets a second: none is lost', async signal => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const before = {
    subnet: a.subnet,
    pid: await a.datapathPid(),
    key: await lab().etcd.keys('/coreos.com/network/subnets'),
  };
  const [out, back] = [await lab().flow(a, b), await lab().flow(b, a)];
  expect(await a.stopDaemon(signal)).toBe(signal === 'SIGKILL' ? 'SIGKILL' : 0);
  await a.startDaemon().waitForEvent('daemon.ready');
  await lab().waitForRoutes();
  const reports = [await out.stop(), await back.stop()];
  expect(reports.map(({ lost, duplicates }) => ({ lost, duplicates }))).toEqual([
    { lost: 0, duplicates: 0 },
    { lost: 0, duplicates: 0 },
  ]);
  expect(reports[0]?.sent).toBeGreaterThan(300);
  await a.daemon.waitForEvent('datapath.adopted');
  const after = {
    subnet: a.subnet,
    pid: await a.datapathPid(),
    key: await lab().etcd.keys('/coreos.com/network/subnets'),
  };
  expect(after).toEqual(before);
});

test('events survive the daemon, and are shown while it is away', async () => {
  const a = lab().node('a');
  const kept = async (): Promise<{ err: string; names: readonly string[] }> => {
    const { status, stdout, stderr } = await a.tool('events', '-o', 'json', '--since', '1h', '-n', '500');
    expect(status, stderr).toBe(0);
    const { events } = JSON.parse(stdout) as { events: readonly { event: string }[] };
    return { err: stderr, names: events.map(({ event }) => event) };
  };
  const running = await kept();
  expect(running.err).toBe('');
  // One life was ended by SIGKILL, one by SIGTERM.
  expect(running.names.filter(name => name === 'daemon.starting')).toHaveLength(3);
  expect(running.names).toContain('daemon.stopping');
  await a.stopDaemon('SIGTERM');
  const away = await kept();
  expect(away.err).toMatch(/^note: tartand cannot be asked: there is no socket /);
  expect(away.names.slice(0, running.names.length)).toEqual(running.names);
  expect(away.names.at(-1)).toBe('daemon.stopping');
  await a.startDaemon().waitForEvent('daemon.ready');
  await lab().waitForRoutes();
});

/** So many packets more in each direction. */
async function moreTraffic(count: number): Promise<void> {
  const a = lab().node('a');
  const before = await a.counters();
  await until('traffic in both directions', async () => {
    const now = await a.counters();
    return ['rx_ok', 'tx_ok'].every(name => (now[name] ?? 0) >= (before[name] ?? 0) + count);
  });
}

async function killDatapath(): Promise<void> {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const pid = await a.datapathPid();
  const [out, back] = [await lab().flow(a, b), await lab().flow(b, a)];
  await moreTraffic(200);
  process.kill(pid, 'SIGKILL');
  await until('another data process', async () => {
    const { datapath } = await a.status();
    return (
      datapath?.pid !== null && datapath?.pid !== pid && datapath?.generationAdopted === datapath?.generationPublished
    );
  });
  await moreTraffic(200);
  for (const report of [await out.stop(), await back.stop()]) {
    expect(report.longestGapMs).toBeLessThan(1000);
    expect(report.lost).toBeLessThan(1000);
    // Nothing is lost later than in one piece around the death: the end of the flow arrives.
    expect(report.lastLost).toBeLessThan(report.sent - 50);
  }
  expect(isAlive(pid)).toBe(false);
}

test('kill -9 of an adopted data process: traffic is back within a second', async () => {
  await lab().node('a').daemon.waitForEvent('datapath.adopted');
  await killDatapath();
});

test('kill -9 of a data process that is a child: traffic is back within a second', async () => {
  // The one before was replaced, so that this one is a child of the living daemon.
  const a = lab().node('a');
  const parent = await a.run('ps', '-o', 'ppid=', '-p', String(await a.datapathPid()));
  expect(Number(parent)).toBe(a.daemon.pid);
  await killDatapath();
});

test('three deaths in a row', async () => {
  const a = lab().node('a');
  for (let round = 0; round < 3; round++) {
    const pid = await a.datapathPid();
    process.kill(pid, 'SIGKILL');
    await until('another data process', async () => (await a.datapathPid()) !== pid);
  }
  await until('traffic', () => a.pingFromContainer(lab().node('b').containerAddress));
});
