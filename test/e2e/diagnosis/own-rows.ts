/** D32 to D46: the host and tartan itself. What only the tool must see is put over its view in a mount namespace. */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from '../../support/lab.js';
import { run } from '../../support/tools.js';
import type { DiagnosisRow } from './row.js';

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
];
