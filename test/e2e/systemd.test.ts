/**
 * Host s is run by a real systemd with our units, the units of Debian's Docker packages and a real engine; host b is an
 * ordinary one. The tests are one life of host s, in order: a boot that fails, restarts, a daemon that hangs, cleanup.
 */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, onTestFailed, test } from 'vitest';
import type { Status } from '../../src/agent/status.js';
import { makeImage } from '../support/docker-engine.js';
import type { DoctorReport } from '../../src/doctor/judge.js';
import { SystemdHost } from '../support/systemd-host.js';
import { root, until } from '../support/tools.js';
import { Flow } from '../support/traffic.js';
import { useLab } from '../support/use-lab.js';

let host: SystemdHost;
const settings = '/etc/default/tartand';
const lab = useLab({ nodes: ['b'], network: false }, async opened => {
  await opened.spaces.openHost('s', '192.0.2.9', 1500);
  host = new SystemdHost(opened.spaces, 's');
  await host.boot({
    'default/tartand': 'TARTAN_LEASE_TTL=never\n',
    // The engine's systemd driver wants D-Bus. And what an administrator wrote must not be lost.
    'default/docker': 'DOCKER_OPTS="--exec-opt native.cgroupdriver=cgroupfs"\n',
  });
});

beforeEach(() => {
  onTestFailed(async () => void process.stderr.write(`${await host.lastWords()}\n`));
});

const docker = (...args: readonly string[]): Promise<string> => host.run(['docker', ...args]);

async function datapathPid(): Promise<number> {
  const [pid, ...others] = await datapathPids();
  if (pid === undefined || others.length > 0) throw new Error(`data processes: ${[pid, ...others].join(', ')}`);
  return pid;
}

/** Those that run: one that has ended waits for its parent. */
async function datapathPids(): Promise<readonly number[]> {
  const { stdout } = await host.attempt(['pgrep', '-r', 'R,S,D', '-x', 'tartan-datapath']);
  return stdout.split('\n').filter(Boolean).map(Number);
}

function subnetEnv(name: string): string {
  return new RegExp(`^${name}=(.*)$`, 'm').exec(host.read('/run/flannel/subnet.env'))?.[1] ?? '';
}

/** What systemd has started again by itself. */
async function restarts(): Promise<number> {
  return Number(await host.show('tartand', 'NRestarts'));
}

/** 1000 numbered datagrams a second in each direction, none of which may be lost while `work` is done. */
async function losingNothing(work: () => Promise<void>): Promise<void> {
  const { spaces } = lab();
  const box = subnetEnv('FLANNEL_SUBNET').replace(/\.1\/.*/, '.2');
  const b = lab().node('b').containerAddress;
  const flows = [
    await Flow.open(spaces, { from: 'bc', to: 'sc', address: box, port: 7001, rate: 1000 }),
    await Flow.open(spaces, { from: 'sc', to: 'bc', address: b, port: 7001, rate: 1000 }),
  ];
  const more = (count: number): Promise<unknown> =>
    Promise.all(
      flows.map(async flow => {
        const before = await flow.received();
        await until('traffic', async () => (await flow.received()) > before + count);
      }),
    );
  await more(100);
  await work();
  await more(100);
  const reports = await Promise.all(flows.map(flow => flow.stop()));
  for (const { lost, duplicates } of reports) expect({ lost, duplicates }).toEqual({ lost: 0, duplicates: 0 });
}

/** Docker and the data plane are the same after `work`, and nothing was lost. */
async function untouched(work: () => Promise<void>): Promise<void> {
  const look = async (): Promise<unknown> => ({
    dockerd: await host.mainPid('docker'),
    datapath: await datapathPid(),
    files: ['/run/tartan/docker.env', '/run/flannel/subnet.env'].map(file => {
      const { ino, mtimeMs } = statSync(host.path(file));
      return { ino, mtimeMs, text: host.read(file) };
    }),
  });
  const before = await look();
  await losingNothing(work);
  expect(await look()).toEqual(before);
}

test('fault U11: a tartand that fails five times at boot delays Docker, does not break it, and says what it waits for', async () => {
  await until('five failures', async () => (await restarts()) >= 5, 60_000);
  expect(host.read('/run/tartand.log')).toContain('TARTAN_LEASE_TTL');
  expect(await host.mainPid('docker')).toBe(0);
  // A client that comes too early waits.
  const early = docker('version', '-f', '{{.Server.Version}}');
  host.write(settings, `TARTAN_ETCD_ENDPOINTS=${lab().etcd.endpoint}\nTARTAN_IP_MASQ=true\n`);
  await until('a daemon that waits', () => host.read('/run/tartand.log').includes('network.waiting'));
  expect(await host.show('tartand', 'ActiveState')).toBe('activating');
  // fault U11: the terminal of `systemctl start` shows nothing, `systemctl status` does.
  expect(await host.show('tartand', 'StatusText')).toMatch(
    /^waits for the network document, and Docker with it: .*\/coreos.com\/network\/config/,
  );
  expect(await host.mainPid('docker')).toBe(0);
  await lab().setNetwork();
  await Promise.all([host.untilActive('docker'), lab().node('b').bringUp()]);
  expect(await early).toMatch(/^\d+\.\d+/);
});

test("Docker was started after the lease, with its address and MTU and the administrator's options", async () => {
  const [ready, started] = await Promise.all([
    host.show('tartand', 'ActiveEnterTimestampMonotonic'),
    host.show('docker', 'ExecMainStartTimestampMonotonic'),
  ]);
  expect(Number(started)).toBeGreaterThan(Number(ready));
  expect(await host.show('tartand', 'StatusText')).toMatch(/^ready, .*, etcd answers$/);
  const [address, mtu] = [subnetEnv('FLANNEL_SUBNET'), subnetEnv('FLANNEL_MTU')];
  const words = host.read(`/proc/${await host.mainPid('docker')}/cmdline`).split('\0');
  const lease = [`--bip=${address}`, '--ip-masq=false', `--mtu=${mtu}`];
  expect(words.slice(-6)).toEqual([...lease, '--exec-opt', 'native.cgroupdriver=cgroupfs', '']);
  expect(await host.run(['ip', '-br', 'address', 'show', 'docker0'])).toContain(` ${address} `);

  await host.run(['docker', 'import', '-', 'box:1'], { input: readFileSync(await makeImage(lab().spaces.directory)) });
  await docker('run', '-d', '--name', 'box', 'box:1', 'sleep', '1000000');
  expect(await docker('exec', 'box', 'ip', 'link', 'show', 'eth0')).toContain(` mtu ${mtu} `);
  await host.adoptContainer(Number(await docker('inspect', '-f', '{{.State.Pid}}', 'box')));
  await lab().node('b').waitForPeers(1);
  const { ok, findings } = JSON.parse(await host.run(['tartan', 'doctor', '-o', 'json'])) as DoctorReport;
  expect({ ok, found: findings.filter(({ severity }) => /error|warning/.test(severity)) }).toEqual({
    ok: true,
    found: [],
  });
});

async function status(): Promise<Status> {
  return JSON.parse(await host.run(['tartan', 'status', '-o', 'json'])) as Status;
}

async function isByKernel(): Promise<boolean> {
  const all = [await status(), await lab().node('b').status()];
  return all.every(({ peers }) => peers[0]?.watched?.engine === 'kernel');
}

/** No packet of a container goes by user space while `work` is done, nor is one left to it then. */
async function byKernelAlone(work: () => Promise<void>): Promise<void> {
  const bare = await lab().captureUnderlay('udp dst port 8285 and udp[8] & 0xf0 = 0x40');
  await work();
  expect(await bare.stop()).toEqual([]);
  await until('both by the kernel', isByKernel);
}

test('the engine kernel runs in the sandbox of the unit', async () => {
  expect((await status()).datapath?.kernel).toMatchObject({ wanted: 'auto', state: 'on', reason: null });
  await until('both by the kernel', async () => {
    await docker('exec', 'box', 'ping', '-c', '1', '-W', '2', lab().node('b').containerAddress);
    return isByKernel();
  });
  expect(await host.run(['tartan', 'peers'])).toMatch(/ENGINE[^]* kernel /);
  expect(await host.run(['cat', '/proc/sys/net/ipv4/conf/tartan-k/forwarding'])).toBe('0\n');
  await byKernelAlone(() => losingNothing(async () => {}));
});

test('systemctl restart leaves Docker, the data plane and the files as they are, and loses nothing', async () => {
  // For a later test: thirty seconds are too long to wait there.
  host.write('/run/systemd/system/tartand.service.d/watchdog.conf', '[Service]\nWatchdogSec=4\n');
  await host.systemctl('daemon-reload');
  const before = await host.mainPid('tartand');
  await byKernelAlone(() => untouched(async () => void (await host.systemctl('restart', 'tartand'))));
  expect(await host.mainPid('tartand')).not.toBe(before);
});

test('fault U10: no restart leaves a process behind, because the data process has a scope of its own', async () => {
  await host.startJournal();
  for (let i = 0; i < 2; i++) await host.systemctl('restart', 'tartand');
  const said = await host.journal('-o', 'cat', 'UNIT=tartand.service');
  expect(said.match(/Started/g)).toHaveLength(2);
  expect(said).not.toMatch(/left-over process|remains running after unit stopped/);
  const scope = `tartan-datapath-${await datapathPid()}.scope`;
  expect(host.read(`/proc/${await datapathPid()}/cgroup`)).toContain(`/${scope}\n`);
  // As the unit has it, so that Docker stops while packets are still carried.
  const weight = await host.show('tartand', 'CPUWeight');
  expect(await host.show(scope, 'CPUWeight')).toBe(weight);
  const before = (await host.show(scope, 'Before')).split(' ');
  expect(before).toEqual(expect.arrayContaining(['docker.service', 'tartand.service']));
  expect(await host.show(scope, 'Slice')).toBe(await host.show('tartand', 'Slice'));
});

test('under the journal a record is an entry with its priority and its fields', async () => {
  const dropIn = '/run/systemd/system/tartand.service.d/with-journal.conf';
  host.write(dropIn, '[Service]\nStandardOutput=journal\nStandardError=journal\n');
  await host.systemctl('daemon-reload');
  await host.systemctl('restart', 'tartand');
  // systemd hears that tartand is ready before the journal does.
  const entry = await until('an entry', async () => {
    const text = await host.journal('-o', 'json', '-u', 'tartand');
    const entries = text
      .trim()
      .split('\n')
      .map(line => JSON.parse(line) as Record<string, string>);
    return entries.find(({ EVENT }) => EVENT === 'daemon.ready');
  });
  expect(entry).toMatchObject({
    PRIORITY: '6',
    SUBNET: subnetEnv('FLANNEL_SUBNET').replace(/\.1\//, '.0/'),
    MESSAGE: expect.stringMatching(/^Docker may start: this host carries 10\.5\./),
    _SYSTEMD_UNIT: 'tartand.service',
    _TRANSPORT: 'journal',
  });
  // What an operator asks for after a healthy start.
  const warnings = await host.journal('-o', 'cat', '-p', 'warning', '-u', 'tartand');
  expect(warnings.split('\n').filter(line => line !== '' && !line.startsWith('etcd '))).toEqual([]);
  await host.run(['rm', dropIn]);
  await host.systemctl('daemon-reload');
  await host.systemctl('restart', 'tartand');
});

test('fault N19: neither program waits behind a busy machine', async () => {
  expect(Number(await host.show('tartand', 'CPUWeight'))).toBeGreaterThan(100);
  for (const pid of [await host.mainPid('tartand'), await datapathPid()])
    expect(Number(await host.run(['ps', '-o', 'ni=', '-p', String(pid)]))).toBeLessThan(0);
});

test('a daemon that hangs is killed by the watchdog and started again, and nothing is lost', async () => {
  const before = { pid: await host.mainPid('tartand'), restarts: await restarts() };
  const heard = new Set<string>();
  await until('two words to the watchdog', async () => {
    heard.add(await host.show('tartand', 'WatchdogTimestampMonotonic'));
    return heard.size > 2;
  });
  expect(await restarts()).toBe(before.restarts);
  await untouched(async () => {
    await host.run(['kill', '-STOP', String(before.pid)]);
    await until('another daemon', async () => (await restarts()) > before.restarts);
    await host.untilActive('tartand');
  });
  expect(await host.mainPid('tartand')).not.toBe(before.pid);
});

test('without tartand Docker and traffic go on', async () => {
  await untouched(async () => {
    await host.systemctl('stop', 'tartand');
    expect(await host.show('tartand', 'ActiveState')).toBe('inactive');
    expect(await docker('exec', 'box', 'ping', '-c', '1', '-W', '2', lab().node('b').containerAddress)).toMatch(/ 0%/);
    await host.systemctl('start', 'tartand');
  });
});

/** A program in the place of the daemon, in the same unit otherwise. */
async function confined(script: string, more = ''): Promise<string> {
  const instead = `Type=oneshot\nRestart=no\nWatchdogSec=0\nExecStartPre=\nExecStart=\nExecStart=/bin/sh /run/probe.sh\n`;
  host.write('/run/systemd/system/tartand-probe.service', host.read('/etc/systemd/system/tartand.service'));
  host.write('/run/systemd/system/tartand-probe.service.d/probe.conf', `[Service]\n${instead}${more}`);
  host.write('/run/probe.sh', script);
  host.write('/run/tartand-probe.log', '');
  await host.systemctl('daemon-reload');
  await host.attempt(['systemctl', 'start', 'tartand-probe']);
  return host.read('/run/tartand-probe.log');
}

/** Lines that say which of the commands failed. */
function trying(commands: readonly string[]): string {
  return commands.map(command => `(${command}) >/dev/null 2>&1 || echo 'failed: ${command}'\n`).join('');
}

test('the unit allows what the daemon may have to do on any host', async () => {
  const { datapath } = await until('a daemon without problems', async () => {
    const now = await status();
    return now.problems.length === 0 && now;
  });
  expect(datapath?.warnings).toEqual([]);
  expect(datapath?.features).toContain('sparse_apart');
  expect(await host.run(['cat', '/proc/sys/net/ipv4/conf/tartan0/accept_local'])).toBe('1\n');
  expect(await host.run(['iptables-save'])).toContain('--comment tartan');
  const allowed = [
    'nft add table ip probe',
    'nft delete table ip probe',
    'iptables-nft -w -t nat -N PROBE',
    'iptables-nft -w -t nat -X PROBE',
    'iptables-legacy -w -t filter -N PROBE',
    'iptables-legacy -w -t filter -X PROBE',
    'echo 1 >/proc/sys/net/ipv4/ip_forward',
    'echo 0 >/proc/sys/net/ipv4/conf/tartan0/accept_redirects',
    ...['/run/tartan', '/run/flannel', '/var/lib/tartan'].map(place => `: >${place}/probe && rm ${place}/probe`),
    'exec 3<>/dev/net/tun',
    `test "$(stat -c %a /run/xtables.lock)" = 600`,
  ];
  expect(await confined(trying(allowed))).toBe('');
});

const editDaemonJson = ': >/etc/docker/.daemon.json.1 && mv /etc/docker/.daemon.json.1 /etc/docker/daemon.json';

test('and nothing else', async () => {
  const places = [
    '/etc',
    '/etc/docker',
    '/usr',
    '/var/lib',
    '/run',
    '/run/lock',
    '/root',
    '/home',
    '/sys/class',
    '/dev',
  ];
  const refused = [
    ...places.map(place => `: >${place}/probe`),
    editDaemonJson,
    'cat /proc/sys/kernel/printk >/proc/sys/kernel/printk',
    'ls /root',
    'mount -t tmpfs tmpfs /run/tartan',
    'unshare --user true',
    'unshare --net true',
    'mknod /run/tartan/null c 1 3',
    'chroot / true',
    'renice -n -5 $$',
    'chmod u+s /run/tartan/docker.env',
    'hostname other',
  ];
  const failed = (await confined(`mkdir -p /etc/docker; ${trying(refused)}`)).split('\n').filter(line => line !== '');
  expect(failed).toEqual(refused.map(command => `failed: ${command}`));
});

test('with ReadWritePaths=/etc/docker it can edit daemon.json', async () => {
  await host.run(['mkdir', '-p', '/etc/docker']);
  expect(await confined(trying([editDaemonJson]), 'ReadWritePaths=/etc/docker\n')).toBe('');
  await host.run(['rm', '/etc/docker/daemon.json']);
});

test('the units are correct and the exposure is low', async () => {
  const files = ['tartand', 'docker'].map(name => `${name}.service`);
  expect(await host.attempt(['systemd-analyze', 'verify', ...files])).toEqual({ status: 0, stdout: '', stderr: '' });
  const unit = '/etc/systemd/system/tartand.service';
  const text = await host.run(['systemd-analyze', 'security', '--offline=true', '--no-pager', unit]);
  const exposure = Number(/exposure level for tartand\.service: ([\d.]+)/.exec(text)?.[1]);
  // 3.0 by systemd 252, from 0 (confined) to 10.
  expect(exposure).toBeLessThanOrEqual(3);
});

test("Red Hat's unit keeps its own options and gets ours", async () => {
  const units = '/run/systemd/system';
  const service =
    '[Service]\nType=oneshot\nEnvironmentFile=-/etc/sysconfig/docker\nEnvironmentFile=-/etc/sysconfig/docker-network\n' +
    "ExecStart=/bin/sh -c 'echo $0 $*' dockerd $OPTIONS $DOCKER_NETWORK_OPTIONS\n";
  host.write('/etc/sysconfig/docker', "OPTIONS='--log-driver=journald --live-restore'\n");
  host.write('/etc/sysconfig/docker-network', 'DOCKER_NETWORK_OPTIONS=\n');
  host.write(`${units}/redhat.service`, service);
  const dropIn = readFileSync(join(root, 'config/systemd/redhat/docker.service.d/tartan.conf'), 'utf8');
  host.write(`${units}/redhat.service.d/tartan.conf`, dropIn);
  await host.systemctl('daemon-reload');
  await host.systemctl('start', 'redhat');
  const lease = `--bip=${subnetEnv('FLANNEL_SUBNET')} --ip-masq=false --mtu=${subnetEnv('FLANNEL_MTU')}`;
  expect(host.read('/run/redhat.log')).toBe(`dockerd --log-driver=journald --live-restore ${lease}\n`);
});

test('a data process that cannot be asked any more is found and replaced', async () => {
  const before = await datapathPid();
  await host.run(['rm', '/run/tartan/datapath.sock']);
  await host.systemctl('restart', 'tartand');
  expect(host.read('/run/tartand.log')).toContain(`"event":"datapath.orphan-killed","pid":${before}`);
  expect(await datapathPid()).not.toBe(before);
});

test('cleanup leaves Docker alone, and tartand can be started again', async () => {
  const dockerd = await host.mainPid('docker');
  await host.systemctl('stop', 'tartand');
  await host.run(['tartan', 'cleanup']);
  expect(await datapathPids()).toEqual([]);
  expect((await host.attempt(['ip', 'link', 'show', 'tartan0'])).status).toBe(1);
  expect(await host.run(['iptables-save'])).not.toContain('tartan');
  expect(await host.run(['ls', '/run'])).not.toMatch(/^tartan$/m);
  await host.systemctl('start', 'tartand');
  await until('traffic', async () => {
    const ping = await host.attempt([
      'docker',
      'exec',
      'box',
      'ping',
      '-c',
      '1',
      '-W',
      '1',
      lab().node('b').containerAddress,
    ]);
    return ping.status === 0;
  });
  expect(await host.mainPid('docker')).toBe(dockerd);
});

test("fault N5: with the account of sysusers.d the next data process is that account's", async () => {
  await host.run(['systemd-sysusers', '/usr/local/lib/node_modules/tartan/config/sysusers.d/tartan.conf']);
  const user = (await host.run(['id', '-u', 'tartan-datapath'])).trim();
  const before = await datapathPid();
  await host.systemctl('restart', 'tartand');
  await host.run(['kill', '-KILL', String(before)]);
  await until('another data process', async () => {
    const pids = await datapathPids();
    return pids.length === 1 && pids[0] !== before;
  });
  expect(host.read(`/proc/${await datapathPid()}/status`)).toMatch(new RegExp(`^Uid:\\t${user}\\t${user}\\t`, 'm'));
});
