/**
 * The real package on real root trees: two hosts of one distribution, each with its systemd, apt and Docker, and without
 * Node.js. One life of both, in order: two commands each until containers reach each other, reboots, upgrade, downgrade,
 * removal. `npm run test:long -- trees` names tree and packages.
 */
import { beforeEach, expect, onTestFailed, test } from 'vitest';
import { difference, packages, tree, TreeHost, type HostMade } from '../support/tree-host.js';
import { until, type Outcome } from '../support/tools.js';
import { Flow, type FlowReport } from '../support/traffic.js';
import { useLab } from '../support/use-lab.js';

let s: TreeHost;
let t: TreeHost;
let before: HostMade;
/** Of the containers. */
let addresses: { readonly s: string; readonly t: string };
const lab = useLab({ nodes: [], etcd: false }, async opened => {
  if (tree === '' || packages.ours === '') throw new Error('no root tree: npm run test:long -- trees');
  [s, t] = await Promise.all([TreeHost.open(opened, 's', '192.0.2.9'), TreeHost.open(opened, 't', '192.0.2.10')]);
  // Every host with a kernel has it, and it stays where something suggests it; s gets it by our dependency.
  await t.run(['apt-get', 'install', '--yes', '--quiet', 'kmod']);
  before = await t.made();
});
beforeEach(() => {
  onTestFailed(async () => void process.stderr.write(`${await s.lastWords()}\n${await t.lastWords()}\n`));
});

const say = (line: string): void => void process.stdout.write(`${line}\n`);

/** The seconds of each command that an operator types. */
async function timed(name: string, command: () => Promise<Outcome>): Promise<Outcome> {
  const begin = performance.now();
  const outcome = await command();
  say(`${((performance.now() - begin) / 1000).toFixed(1).padStart(6)} s  ${name}`);
  expect({ name, status: outcome.status, said: outcome.status === 0 ? '' : outcome.stdout + outcome.stderr }).toEqual({
    name,
    status: 0,
    said: '',
  });
  return outcome;
}

const since = (begin: number): string => `${((performance.now() - begin) / 1000).toFixed(1).padStart(6)} s`;

test('two commands on each host, and the first ping between containers both ways', async () => {
  say(
    `${/^PRETTY_NAME="(.*)"$/m.exec(s.read('/etc/os-release'))?.[1]}, ${(await s.run(['docker', '--version'])).trim()}`,
  );
  const begin = performance.now();
  await timed('s: apt install ./tartan.deb', () => s.install(packages.ours));
  const words = ['tartan', 'init', '--network', '10.5.0.0/16', '--restart-docker'];
  const init = await timed(`s: ${words.join(' ')}`, () => s.attempt(words, { timeoutMs: 120_000 }));
  const token = init.stdout.trim().split('\n').at(-1) ?? '';
  await timed('t: apt install ./tartan.deb', () => t.install(packages.ours));
  const join = ['tartan', 'join', '-', '--restart-docker'];
  const joined = await timed(`t: ${join.join(' ')}`, () => t.attempt(join, { input: `${token}\n` }));
  say(`${since(begin)}  these 4 commands; 27 before there were packages`);
  expect(joined.stdout).toContain('UDP passes to 192.0.2.9\n');
  await Promise.all([s.startContainer(), t.startContainer()]);
  addresses = { s: await s.containerAddress(), t: await t.containerAddress() };
  expect(await t.pings(addresses.s)).toBe(true);
  expect(await s.pings(addresses.t)).toBe(true);
  say(`${since(begin)}  with the start of a container on each, and a ping both ways`);
  expect(await s.show('tartand', 'NRestarts')).toBe('0');
}, 300_000);

/** What the host knows of itself, when all is well. */
async function isWell(host: TreeHost): Promise<void> {
  await until(
    'tartan status --check',
    async () => (await host.attempt(['tartan', 'status', '--check'])).status === 0,
    30_000,
  );
  const verify = await host.attempt(['tartan', 'docker', 'verify']);
  expect(verify.stdout).toMatch(/./);
  expect({ status: verify.status, said: verify.status === 0 ? '' : verify.stdout }).toEqual({ status: 0, said: '' });
}

test('a host is rebooted: traffic as before, without a hand', async () => {
  const pings = s.startPings(addresses.t);
  await until('an answer', () => pings.answers > 2);
  const begin = performance.now();
  await t.reboot();
  await t.untilRunning();
  const answers = pings.answers;
  await until('answers again', () => pings.answers > answers + 5, 60_000);
  say(`${since(begin)}  one host is rebooted, longest silence of pings from the other ${pings.stop().silence} s`);
  expect(await t.containerAddress()).toBe(addresses.t);
  await isWell(t);
});

/** Until each container has an answer of the other. */
async function untilPings(begin: number, what: string): Promise<void> {
  await Promise.all([s.untilRunning(), t.untilRunning()]);
  await until('pings', async () => (await s.pings(addresses.t)) && (await t.pings(addresses.s)), 60_000);
  say(`${since(begin)}  ${what}, to a ping both ways`);
}

test('both are rebooted at once: traffic as before, without a hand', async () => {
  const begin = performance.now();
  await Promise.all([s.reboot(), t.reboot()]);
  await untilPings(begin, 'both are rebooted at once');
  await isWell(s);
  await isWell(t);
});

test('both are rebooted, and etcd comes last: traffic does not wait for it', async () => {
  const late = '/etc/systemd/system/tartan-etcd.service.d/late.conf';
  s.write(late, '[Service]\nExecStartPre=sleep 40\n');
  const begin = performance.now();
  await Promise.all([s.reboot(), t.reboot()]);
  await untilPings(begin, 'both are rebooted, etcd is 40 s late');
  expect(await s.show('tartan-etcd', 'ActiveState')).toBe('activating');
  await until('etcd', async () => (await s.show('tartan-etcd', 'ActiveState')) === 'active', 60_000);
  await isWell(s);
  await isWell(t);
  await s.run(['rm', '-r', '/etc/systemd/system/tartan-etcd.service.d']);
  await s.systemctl('daemon-reload');
});

/** What 1000 numbered packets a second each way came to while something was done. */
async function under(what: string, work: () => Promise<unknown>): Promise<readonly FlowReport[]> {
  await Promise.all([s.nameContainer(), t.nameContainer()]);
  const { spaces } = lab();
  const flows = [
    await Flow.open(spaces, { from: 'sc', to: 'tc', address: addresses.t, port: 7001, rate: 1000 }),
    await Flow.open(spaces, { from: 'tc', to: 'sc', address: addresses.s, port: 7001, rate: 1000 }),
  ];
  const begin = performance.now();
  await work();
  const time = since(begin);
  const reports: FlowReport[] = [];
  for (const flow of flows) reports.push(await flow.stop());
  const told = reports.map(({ sent, lost, longestGapMs }) => `${lost} of ${sent} lost, longest gap ${longestGapMs} ms`);
  say(`${time}  ${what}; ${told.join('; ')}`);
  return reports;
}

test('an upgrade loses nothing at 1000 packets a second each way, and keeps what the administrator wrote', async () => {
  const settings = `${t.read('/etc/default/tartand')}TARTAN_HEALTHZ_PORT=8470\n`;
  t.write('/etc/default/tartand', settings);
  const dockerd = await t.mainPid('docker');
  const before = { tartand: await t.mainPid('tartand'), datapath: (await t.run(['pidof', 'tartan-datapath'])).trim() };
  const reports = await under('apt install of a later build', async () => {
    await timed('t: apt install ./tartan.deb', () => t.install(packages.next));
    await isWell(t);
  });
  expect(reports.map(({ lost }) => lost)).toEqual([0, 0]);
  expect(t.read('/etc/default/tartand')).toBe(settings);
  expect(await t.mainPid('docker')).toBe(dockerd);
  expect(await t.mainPid('tartand')).not.toBe(before.tartand);
  expect((await t.run(['pidof', 'tartan-datapath'])).trim()).not.toBe(before.datapath);
});

test('a downgrade works, and keeps the same', async () => {
  const settings = t.read('/etc/default/tartand');
  await under('apt install of the earlier build', async () => {
    await timed('t: apt install ./tartan.deb', () => t.install(packages.ours, '--allow-downgrades'));
    await isWell(t);
  });
  expect(t.read('/etc/default/tartand')).toBe(settings);
});

test('an upgrade obeys systemctl stop and systemctl disable', async () => {
  await t.systemctl('stop', 'tartand');
  await timed('t: apt install, stopped', () => t.install(packages.next));
  expect(await t.show('tartand', 'ActiveState')).toBe('inactive');
  await t.systemctl('disable', 'tartand');
  await timed('t: apt install, disabled', () => t.install(packages.ours, '--allow-downgrades'));
  expect([await t.show('tartand', 'ActiveState'), await t.show('tartand', 'UnitFileState')]).toEqual([
    'inactive',
    'disabled',
  ]);
  await t.systemctl('enable', '--now', 'tartand');
  await isWell(t);
});

test('removed and purged: the host is as before, but for the user of the data process and the address of docker0', async () => {
  await timed('t: apt remove tartan', () => t.attempt(['apt', 'remove', '--yes', 'tartan']));
  expect((await s.run(['tartan', 'leases'])).includes('192.0.2.10')).toBe(false);
  await timed('t: apt purge tartan', () => t.attempt(['apt', 'purge', '--yes', '--autoremove', 'tartan']));
  await t.run(['docker', 'rm', '-f', 'box']);
  await t.systemctl('restart', 'docker');
  expect(difference(before, await t.made())).toEqual(['+ accounts tartan-datapath']);
});

test('the tarball: installed below a prefix it makes the same member, and takes itself away', async () => {
  const tarball = t.bring(packages.tarball);
  await t.run(['mkdir', '/root/unpacked']);
  await t.run(['tar', '-x', '-z', '-f', tarball, '-C', '/root/unpacked', '--strip-components=1']);
  const install = ['sh', '/root/unpacked/install.sh', '--prefix', '/usr'];
  await timed('t: install.sh --prefix /usr', () => t.attempt(install));
  const { stdout: token } = await s.attempt(['tartan', 'token', 'new']);
  const join = ['tartan', 'join', '-', '--restart-docker'];
  await timed(`t: ${join.join(' ')}`, () => t.attempt(join, { input: token }));
  await t.startContainer();
  expect(await t.pings(addresses.s)).toBe(true);
  await isWell(t);
  await timed('t: install.sh again', () => t.attempt(install));
  await isWell(t);
  await timed('t: install.sh --uninstall', () => t.attempt([...install, '--uninstall']));
  await t.run(['docker', 'rm', '-f', 'box']);
  await t.systemctl('restart', 'docker');
  const more = difference(before, await t.made());
  expect(more.filter(line => !/ \/(var\/lib\/tartan|etc\/default\/tartand)\b/.test(line))).toEqual([
    '+ accounts tartan-datapath',
  ]);
});

test("the host of the cluster's etcd: uninstall takes that too, and leaves the distribution's etcd free and off", async () => {
  expect(await s.show('etcd', 'LoadState')).toBe('masked');
  await timed('s: tartan uninstall', () => s.attempt(['tartan', 'uninstall']));
  expect([await s.show('etcd', 'LoadState'), await s.show('etcd', 'ActiveState')]).toEqual(['loaded', 'inactive']);
  await s.reboot();
  expect([await s.show('etcd', 'UnitFileState'), await s.show('etcd', 'ActiveState')]).toEqual([
    'disabled',
    'inactive',
  ]);
  expect((await s.attempt(['pidof', 'etcd'])).status).toBe(1);
  await timed('s: apt purge tartan', () => s.attempt(['apt', 'purge', '--yes', 'tartan']));
});
