/** Lanes of a datapath: with and without the kernel's leave to steer flows, over adoption and death, and with traffic. */
import { readFileSync, readdirSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { probe, run } from '../support/tools.js';
import { Lab, bothUp, pidOf, respawned, until, type Daemon, type State } from './datapath-lab.js';
import { Reporter, inside, usePrograms } from './steering-lab.js';

const program = usePrograms('test/support/bursts.c');
let lab: Lab;

beforeEach(() => {
  lab = new Lab();
});

afterEach(async () => {
  await lab.close();
});

/** Queues and sockets that a data process holds. */
async function endsOf(daemon: Daemon): Promise<{ readonly queues: number; readonly threads: readonly string[] }> {
  const directory = `/proc/${await pidOf(daemon)}`;
  const queues = readdirSync(`${directory}/fdinfo`).filter(fd =>
    readFileSync(`${directory}/fdinfo/${fd}`, 'latin1').includes('iff:'),
  ).length;
  const names = readdirSync(`${directory}/task`).map(id =>
    readFileSync(`${directory}/task/${id}/comm`, 'latin1').trim(),
  );
  return { queues, threads: names.filter(name => /\d$/.test(name)).sort() };
}

/** Times that each thread was run. */
function threadTimes(pid: number): ReadonlyMap<string, number> {
  const directory = `/proc/${pid}/task`;
  const of = (id: string, file: string): string => readFileSync(`${directory}/${id}/${file}`, 'latin1').trim();
  return new Map(readdirSync(directory).map(id => [of(id, 'comm'), Number(of(id, 'schedstat').split(' ')[2])]));
}

const threadsOf: Readonly<Record<number, readonly string[]>> = {
  0: ['tartan-rx0', 'tartan-tx0'],
  1: ['tartan-rx0', 'tartan-sparse1', 'tartan-tx0'],
  2: ['tartan-rx0', 'tartan-rx1', 'tartan-sparse2', 'tartan-tx0', 'tartan-tx1'],
  3: ['tartan-rx0', 'tartan-rx1', 'tartan-rx2', 'tartan-sparse3', 'tartan-tx0', 'tartan-tx1', 'tartan-tx2'],
};

async function expectLanes(daemon: Daemon, lanes: number): Promise<State> {
  const queues = lanes === 0 ? 1 : lanes + 1;
  expect(await endsOf(daemon)).toEqual({ queues, threads: threadsOf[lanes] });
  const state = await daemon.state();
  expect(state.threads).toBe(threadsOf[lanes]?.length);
  expect(state.features.includes('sparse_apart')).toBe(lanes > 0);
  return state;
}

async function traffic(): Promise<void> {
  await until(
    'traffic',
    () => lab.reaches(),
    seen => seen,
  );
}

test('where bpf(2) is refused there is one lane without sparse flows, a reason, and traffic', async () => {
  const refused = ['setpriv', '--bounding-set=-bpf,-sys_admin'];
  const a = (await lab.up('a', { lanes: 2 }, { through: refused })).daemon;
  const b = (await lab.up('b', { lanes: 2 })).daemon;
  lab.configureLink('a');
  lab.configureLink('b');
  await traffic();
  const { warnings } = await expectLanes(a, 0);
  expect(warnings).toEqual([
    expect.stringMatching(/^flows that send little wait behind bulk ones: .*EPERM.*bpf.*CAP_BPF, are needed\)$/),
  ]);
  expect((await expectLanes(b, 2)).warnings).toEqual([]);
  expect(await lab.lost(200)).toBe(0);

  // Another daemon, which may, widens what this one had as soon as there is another data process.
  const pid = await pidOf(a);
  await a.kill();
  const next = await lab.up('a', { lanes: 2 });
  expect(next.adopted).toBe(true);
  await expectLanes(next.daemon, 0);
  process.kill(pid, 'SIGKILL');
  await respawned(next.daemon, pid);
  expect((await expectLanes(next.daemon, 2)).warnings).toEqual([]);
  await traffic();
});

test('there are lanes unless none is asked for', async () => {
  const { a, b } = await bothUp(lab);
  const { threads, features, warnings } = await a.state();
  expect(features).toContain('sparse_apart');
  expect(threads % 2).toBe(1);
  expect(warnings).toEqual([]);
  await b.call('remove');
  const none = lab.daemon('b');
  await none.call('open', { runDir: lab.runDir('b', 'none'), device: 'tartan0', lanes: 0 });
  await none.call('start', lab.config('b', 8286));
  expect((await expectLanes(none, 0)).warnings).toEqual([]);
});

test('another daemon finds the lanes as they were, and so does the next data process', async () => {
  const a = (await lab.up('a', { lanes: 2 })).daemon;
  await lab.up('b', { lanes: 1 });
  lab.configureLink('a');
  lab.configureLink('b');
  await traffic();
  const pid = await pidOf(a);
  await a.kill();
  // It would have made one lane.
  const next = await lab.up('a', { lanes: 1 });
  expect(next.adopted).toBe(true);
  expect(await pidOf(next.daemon)).toBe(pid);
  expect((await expectLanes(next.daemon, 2)).warnings).toEqual([]);
  process.kill(pid, 'SIGKILL');
  await respawned(next.daemon, pid);
  expect((await expectLanes(next.daemon, 2)).warnings).toEqual([]);
  await traffic();
  // New sockets for the queues there are.
  await next.daemon.call('start', lab.config('a', 8286));
  expect((await expectLanes(next.daemon, 2)).warnings).toEqual([]);
  // New queues for the sockets there are.
  lab.ip('a', 'link', 'delete', 'tartan0');
  const last = await until(
    'a new link',
    () => next.daemon.state(),
    s => s.changes > 1 && s.pid !== undefined && lab.hasLink('a'),
  );
  expect(last.features).toContain('sparse_apart');
  expect((await expectLanes(next.daemon, 2)).warnings).toEqual([]);
});

test('lanes are added when another daemon makes more: nothing is lost, and flows use them', async () => {
  const a = (await lab.up('a', { lanes: 1 })).daemon;
  await lab.up('b', { lanes: 1 });
  lab.configureLink('a');
  lab.configureLink('b');
  await traffic();
  await a.kill();
  const next = await lab.up('a', { lanes: 2 });
  expect(next.adopted).toBe(true);
  const pid = await pidOf(next.daemon);
  await expectLanes(next.daemon, 1);
  // Another configuration is another data process, which takes over.
  const lost = lab.lost(1000);
  await next.daemon.call('start', { ...lab.config('a'), checkDestination: false });
  expect(await pidOf(next.daemon)).not.toBe(pid);
  expect((await expectLanes(next.daemon, 2)).warnings).toEqual([]);
  expect(await lost).toBe(0);
  const bursts = await Reporter.ready(inside(lab, 'b', [program('bursts'), 'receive', '7100']));
  await run(inside(lab, 'a', [program('bursts'), 'send', '10.5.2.0', '7100', '200', '2000', '2', '5']));
  bursts.stop();
  expect(await bursts.report()).toMatchObject({ duplicates: 0, reordered: 0 });
  const schedstat = threadTimes(await pidOf(next.daemon));
  expect(schedstat.get('tartan-tx1')).toBeGreaterThan(0);
});

test.each([2, 3])('%i lanes: several flows at once, whole and in order', async lanes => {
  const a = (await lab.up('a', { lanes })).daemon;
  const b = (await lab.up('b', { lanes })).daemon;
  lab.configureLink('a');
  lab.configureLink('b');
  await traffic();
  const ports = [7000, 7001, 7002, 7003, 7004, 7005];
  const ready = (port: number): Promise<Reporter> => Reporter.ready(inside(lab, 'b', [probe, 'serve', String(port)]));
  const servers = await Promise.all(ports.map(ready));
  const bursts = await Reporter.ready(inside(lab, 'b', [program('bursts'), 'receive', '7100']));
  const push = (port: number): Reporter =>
    new Reporter(inside(lab, 'a', [probe, 'push', '10.5.2.0', String(port), String(8 << 20)]));
  const numbered = new Reporter(
    inside(lab, 'a', [program('bursts'), 'send', '10.5.2.0', '7100', '200', '100', '40', '5']),
  );
  const sent = await Promise.all(ports.map(port => push(port).report()));
  const got = await Promise.all(servers.map(server => server.report()));
  expect(got.map(({ checksum }) => checksum)).toEqual(sent.map(({ checksum }) => checksum));
  await numbered.report();
  bursts.stop();
  const report = await bursts.report();
  expect(report).toMatchObject({ duplicates: 0, reordered: 0, acrossSilence: 0 });
  expect(report['received']).toBeGreaterThan(0);
  await expectLanes(a, lanes);
  await expectLanes(b, lanes);
});
