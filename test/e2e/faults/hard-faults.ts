/** What takes too long or too much for every run of the tests: only the soak (`npm run soak`) does it. */
import { chmodSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { isAlive } from '../../support/lab-host.js';
import { attempt, until } from '../../support/tools.js';
import { check, type Fault } from './fault.js';
import type { FaultLab } from './lab.js';
import { giveBack, losesAll } from './lease-faults.js';

const subnets = '/coreos.com/network/subnets';
const held = '/coreos.com/network/held';
/** A peer that nobody can reach: documentation address, not in the lab. */
const stranger = { key: `${subnets}/10.5.240.0-24`, subnet: '10.5.240.0/24', value: '{"PublicIP":"192.0.2.77"}' };

export const hardFaults: readonly Fault[] = [
  {
    name: 'the data process stopped for good',
    // It is replaced after 10 s without an answer.
    lostMax: 25_000,
    inject: async lab => {
      const pid = await lab.victim.datapathPid();
      process.kill(pid, 'SIGSTOP');
      await until('a problem says so', async () => (await lab.victim.status()).problems.length > 0, 10_000);
      await until('another one in its place', () => !isAlive(pid), 20_000);
    },
    convergeMs: 10_000,
  },
  {
    name: 'megabytes of junk below subnets and held',
    inject: async lab => {
      for (const key of junkKeys) await lab.etcd.write({ [key]: 'x'.repeat(1_200_000) });
      await lab.etcd.write({ [stranger.key]: stranger.value });
      await followed(lab, 5000);
      await lab.victim.stopDaemon();
      await lab.restart();
    },
    heal: async lab => {
      for (const key of [...junkKeys, stranger.key]) await lab.etcd.write({ [key]: undefined });
      await lab.etcd.compact();
    },
    convergeMs: 10_000,
  },
  {
    name: 'etcd restored from a backup, and overtaken by other writers',
    inject: async lab => {
      await restored(lab, async () => {});
      await overtake(lab);
    },
    convergeMs: 20_000,
  },
  {
    name: 'etcd restored and overtaken while a host hears nothing, its subnet another one there',
    lostMax: Infinity,
    peersMayGo: true,
    inject: async lab => {
      const key = lab.keyOf(lab.victim);
      await restored(lab, () => lab.filter('output tcp dport { 2379, 2479, 2579 } drop'));
      await lab.etcd.write({ [key]: undefined });
      await lab.etcd.write({
        [key]: '{"PublicIP":"192.0.2.66","PublicIPv6":null,"nodeId":"intruder","bootId":"elsewhere"}',
      });
      await overtake(lab);
      await lab.unfilter();
      await losesAll(lab, 10_000);
    },
    heal: async lab => {
      await lab.unfilter();
      await giveBack(lab);
    },
    convergeMs: 20_000,
  },
  {
    name: 'a path narrower than the tunnel',
    inject: async lab => {
      const { victim, peer } = lab;
      const [route] = (await victim.run('ip', 'route', 'get', peer.address)).split('\n');
      const device = /dev (\S+)/.exec(route ?? '')?.[1] ?? '';
      await victim.run('ip', 'route', 'add', `${peer.address}/32`, 'dev', device, 'mtu', 'lock', '1300');
      const command = ['ping', '-M', 'dont', '-s', '1400', '-c', '10', '-i', '0.2', '-w', '8', peer.containerAddress];
      const { stdout } = await attempt(lab.lab.spaces.inside(victim.containerNamespace, command));
      check(/\b10 received/.test(stdout), `10 packets that may be cut and their answers, not: ${stdout}`);
    },
    heal: async lab => {
      await attempt(lab.victim.inside(['ip', 'route', 'del', `${lab.peer.address}/32`]));
    },
  },
  {
    name: 'firewall programs that hang',
    inject: async lab => {
      const tools = new HangingTools(lab);
      await lab.victim.stopDaemon();
      await lab.victim.startDaemon(lab.flags, { PATH: tools.path }).waitForEvent('daemon.ready');
      tools.hang();
      await lab.stay(2000);
      await lab.etcd.write({ [stranger.key]: stranger.value });
      await followed(lab, 2000);
      await lab.stay(8000);
      check((await lab.victim.status()).problems.length > 0, 'a problem that names the program');
      tools.close();
    },
    heal: async lab => {
      new HangingTools(lab).close();
      await lab.etcd.write({ [stranger.key]: undefined });
      if (lab.victim.daemon.running) await lab.victim.stopDaemon();
      await lab.restart();
    },
    convergeMs: 20_000,
  },
  {
    name: 'readers of the status that never read',
    inject: async lab => {
      const clients = Array.from({ length: 100 }, () => stalledClient(lab));
      try {
        for (let round = 0; round < 20; round++) {
          await lab.victim.status();
          await lab.stay(100);
        }
      } finally {
        for (const client of clients) client.destroy();
      }
    },
  },
];

const junkKeys = [1, 2, 3, 4].flatMap(n => [`${subnets}/junk-${n}`, `${held}/junk-${n}`]);

/** The victim follows a change of peers. */
async function followed(lab: FaultLab, ms: number): Promise<void> {
  const patience = lab.patience(ms);
  while (!(await lab.victim.status()).peers.some(({ subnet }) => subnet === stranger.subnet)) {
    check(!patience.isOver, `the new peer ${stranger.subnet} within ${ms} ms`);
    await lab.stay(20);
  }
}

/** Goes back to a backup of the present state, after other changes. @param before is done while etcd is down */
async function restored(lab: FaultLab, before: () => Promise<void>): Promise<void> {
  const revision = await lab.etcd.revision();
  await lab.etcd.kill();
  lab.etcd.backUp(revision);
  await lab.etcd.start();
  for (let round = 0; round < 20; round++) await lab.etcd.write({ '/coreos.com/network/other': String(round) });
  await lab.etcd.kill();
  await before();
  lab.etcd.restore();
  await lab.etcd.start();
}

/** Writes until the revision is beyond all that was seen before. */
async function overtake(lab: FaultLab): Promise<void> {
  for (let round = 0; round < 60; round++) await lab.etcd.write({ '/coreos.com/network/another': String(round) });
}

/** `iptables-save`, `iptables-restore` and `nft` of a directory that comes first in PATH: they hang while told so. */
class HangingTools {
  readonly #directory: string;

  constructor(lab: FaultLab) {
    this.#directory = join(lab.lab.spaces.directory, `${lab.victim.letter}-hanging`);
    mkdirSync(this.#directory, { recursive: true });
    for (const name of ['iptables-save', 'iptables-restore', 'nft']) {
      const path = join(this.#directory, name);
      const real = `PATH=${JSON.stringify(process.env['PATH'] ?? '')}`;
      writeFileSync(path, `#!/bin/sh\n[ ! -e ${this.#told} ] || exec sleep 15\n${real} exec ${name} "$@"\n`);
      chmodSync(path, 0o755);
    }
  }

  get path(): string {
    return `${this.#directory}:${process.env['PATH'] ?? ''}`;
  }

  get #told(): string {
    return join(this.#directory, 'hang');
  }

  hang(): void {
    writeFileSync(this.#told, '');
  }

  close(): void {
    if (existsSync(this.#told)) rmSync(this.#told);
  }
}

function stalledClient(lab: FaultLab): Socket {
  const socket = connect(join(lab.victim.runDir, 'tartand.sock'));
  socket.on('error', () => {});
  socket.pause();
  for (let question = 0; question < 100; question++) socket.write('GET /status HTTP/1.1\r\nHost: x\r\n\r\n');
  return socket;
}
