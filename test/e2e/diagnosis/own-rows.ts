/** D32 to D46: the host and tartan itself. What only the tool must see is put over its view in a mount namespace. */
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { keyPrefix, type Lab } from '../../support/lab.js';
import { treeOf } from '../../support/other-version.js';
import { makePreload, root, run } from '../../support/tools.js';
import type { DiagnosisRow, Heal } from './row.js';

/** A command in whose view something is mounted over. */
const mounted = (script: string): readonly string[] => ['unshare', '-m', 'sh', '-c', `${script} && exec "$@"`, 'sh'];

async function setLimit(pid: number, files: number): Promise<void> {
  await run(['prlimit', '--pid', String(pid), `--nofile=${files}:`]);
}

async function daemonPid(lab: Lab): Promise<number> {
  return (await lab.node('a').status()).daemon?.pid ?? 0;
}

/** A file of these words in the directory of the lab. */
function wrote(lab: Lab, name: string, text: string): string {
  const path = join(lab.spaces.directory, name);
  writeFileSync(path, text);
  return path;
}

/** The data process is stopped most of the time, each time for less than tartand takes for hung, under a flood. */
async function stopAndGo(lab: Lab, letter: string): Promise<Heal> {
  const pid = await lab.node(letter).datapathPid();
  const flow = await lab.flow(lab.node('a'), lab.node(letter), 30_000);
  const stop = (): void => void process.kill(pid, 'SIGSTOP');
  stop();
  const timer = setInterval(() => {
    process.kill(pid, 'SIGCONT');
    setTimeout(stop, 300);
  }, 4_000);
  return async () => {
    clearInterval(timer);
    await delay(400);
    process.kill(pid, 'SIGCONT');
    await flow.stop();
  };
}

/** The wall clock that tartand sees is set forward; its other clocks go on. */
async function setClock(lab: Lab, letter: string): Promise<Heal> {
  const host = lab.node(letter);
  const library = await makePreload('test/support/set-clock.c', join(lab.spaces.directory, 'set-clock.so'));
  const environment = { LD_PRELOAD: library, SET_CLOCK: wrote(lab, 'clock', '0') };
  await host.stopDaemon();
  await host.startDaemon({}, environment).waitForEvent('daemon.ready');
  wrote(lab, 'clock', '3600');
  return async () => {
    await host.stopDaemon();
    await host.bringUp();
  };
}

/** The data process may run for a twentieth of the time, under a flood (cgroups(7), CPU bandwidth control). */
async function starve(lab: Lab, letter: string): Promise<Heal> {
  const pid = await lab.node(letter).datapathPid();
  const flow = await lab.flow(lab.node('a'), lab.node(letter), 30_000);
  const parent = ['/sys/fs/cgroup/cpu', '/sys/fs/cgroup'].find(path => existsSync(join(path, 'cgroup.procs'))) ?? '';
  const group = join(parent, `tartan-test-${process.pid}`);
  mkdirSync(group);
  if (existsSync(join(group, 'cpu.max'))) writeFileSync(join(group, 'cpu.max'), '5000 100000');
  else writeFileSync(join(group, 'cpu.cfs_quota_us'), '5000');
  writeFileSync(join(group, 'cgroup.procs'), String(pid));
  return async () => {
    writeFileSync(join(parent, 'cgroup.procs'), String(pid));
    rmdirSync(group);
    await flow.stop();
  };
}

/** Our tree, whose data process cannot start. */
function treeWithoutDataProcess(lab: Lab): string {
  const tree = join(lab.spaces.directory, 'tree');
  cpSync(join(root, 'dist'), join(tree, 'dist'), { recursive: true });
  for (const name of ['node_modules', 'package.json']) symlinkSync(join(root, name), join(tree, name));
  copyFileSync('/bin/false', join(tree, 'dist/tartan-datapath'));
  return tree;
}

async function restartAs(lab: Lab, letter: string, tree: string): Promise<void> {
  const host = lab.node(letter);
  await host.stopDaemon();
  host.program = join(tree, 'dist/tartand.js');
  await host.bringUp();
}

export const ownRows: readonly DiagnosisRow[] = [
  {
    id: 'D32',
    what: 'the table of connections full',
    on: 'a',
    inject: async () => async () => {},
    view: lab => {
      const [count, max] = [wrote(lab, 'count', '4096\n'), wrote(lab, 'max', '4096\n')];
      const place = '/proc/sys/net/netfilter/nf_conntrack';
      return mounted(`mount --bind ${count} ${place}_count && mount --bind ${max} ${place}_max`);
    },
    doctor: ['conntrack-full', /4096 of 4096 entries.*nf_conntrack_max=8192/],
  },
  {
    id: 'D33',
    what: '/dev/net/tun absent',
    on: 'a',
    inject: async () => async () => {},
    view: () => mounted('mount -t tmpfs none /dev/net'),
    doctor: ['tun-device', /is absent.*modprobe tun/],
  },
  {
    id: 'D33',
    what: '/dev/net/tun forbidden',
    on: 'a',
    inject: async () => async () => {},
    view: lab => {
      const node = join(lab.spaces.directory, 'tun');
      return mounted(
        `mkdir -p ${node} && mount -t tmpfs -o nodev none ${node} && mknod ${node}/t c 10 200 && mount --bind ${node}/t /dev/net/tun`,
      );
    },
    doctor: ['tun-device', /is forbidden.*allow the device/],
  },
  {
    id: 'D34',
    what: 'duplicate node id',
    on: 'b',
    async inject(lab) {
      const [a, b] = [lab.node('a'), lab.node('b')];
      await b.stopDaemon();
      b.startDaemon({ 'node-id': (await a.status()).node.id });
      await b.daemon.end();
      return () => b.bringUp();
    },
    doctor: ['daemon-away', /another live host|node id|identity/],
  },
  {
    id: 'D38',
    what: 'clock set forward by an hour',
    on: 'a',
    inject: lab => setClock(lab, 'a'),
    doctor: ['clock-set', /set forward by 3600 s.*time server.*timedatectl/],
  },
  {
    id: 'D39',
    what: 'disk full',
    on: 'a',
    inject: async () => async () => {},
    view: lab => {
      const { stateDir } = lab.node('a');
      return mounted(
        `mount -t tmpfs -o size=64k none ${stateDir} && (head -c 100000 /dev/zero >${stateDir}/full; true)`,
      );
    },
    doctor: ['disk-full', /0 bytes.*file system is full/],
  },
  {
    id: 'D40',
    what: 'read-only state',
    on: 'a',
    inject: async () => async () => {},
    view: lab => {
      const { stateDir } = lab.node('a');
      return mounted(`mount --bind ${stateDir} ${stateDir} && mount -o remount,ro,bind ${stateDir}`);
    },
    doctor: ['directory-read-only', /read-only.*remount,rw/],
  },
  {
    id: 'D41',
    what: 'descriptors used up',
    on: 'a',
    async inject(lab) {
      const pid = await daemonPid(lab);
      const open = readdirSync(`/proc/${pid}/fd`).length;
      const before = Number(/^Max open files\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))?.[1] ?? 1024);
      await setLimit(pid, open + 3);
      return () => setLimit(pid, before);
    },
    doctor: ['descriptors-used-up', /LimitNOFILE/],
  },
  {
    id: 'D42',
    what: 'data process of another build',
    on: 'c',
    status: /of build .* did not start/,
    async inject(lab) {
      await restartAs(lab, 'c', await treeOf('other build'));
      await restartAs(lab, 'c', treeWithoutDataProcess(lab));
      return () => restartAs(lab, 'c', root);
    },
    doctor: ['data-process-build', /of build .* did not start.*could not take over.*restart tartand/],
  },
  {
    id: 'D44',
    what: 'more comes than the data process takes',
    on: 'b',
    inject: lab => stopAndGo(lab, 'b'),
    doctor: ['receive-drops', /drops datagrams of peers now: \d+ during this check.*buffers or its processors/],
  },
  {
    id: 'D45',
    what: 'starved of processor',
    on: 'b',
    inject: lab => starve(lab, 'b'),
    doctor: ['starved', /waited for a processor \d+ %.*more processors, or limit/],
  },
  {
    id: 'D46',
    what: 'a peer of another version, which answers no questions',
    on: 'a',
    peers: /unwatched/,
    async inject(lab) {
      const key = `${keyPrefix}/subnets/10.5.250.0-24`;
      await lab.etcd.put(key, '{"PublicIP":"192.0.2.99","BackendType":"udp"}');
      return () => lab.etcd.delete(key);
    },
    // It says no goodbye, so its routes stay for a minute.
    healLimitMs: 75_000,
    doctor: ['peer-unwatched', /192\.0\.2\.99.*cannot be asked.*flannel, or a tartan of an earlier version/],
  },
];

/** On a host that is as an unprivileged container, and stays so. */
export const unprivilegedRows: readonly DiagnosisRow[] = [
  {
    id: 'D43',
    what: 'the kernel gives less than was asked for (unprivileged container)',
    on: 'x',
    status: /CAP_BPF|CAP_NET_ADMIN/,
    inject: async () => async () => {},
    doctor: ['kernel-gives-less', /CAP_BPF.*container/],
    left: ['kernel-gives-less'],
  },
];
