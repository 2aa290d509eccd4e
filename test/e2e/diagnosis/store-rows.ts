/** D1 to D8 and the lease: faults of etcd, of the way to it, and of what it says. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { keyPrefix, type Lab } from '../../support/lab.js';
import type { LabHost } from '../../support/lab-host.js';
import { run } from '../../support/tools.js';
import type { FaultEtcd } from '../faults/etcd.js';
import type { DiagnosisRow, Heal } from './row.js';

async function restart(lab: Lab, flags: Readonly<Record<string, string>>): Promise<void> {
  const a = lab.node('a');
  if (a.daemon.running) await a.stopDaemon();
  a.startDaemon(flags);
}

async function back(lab: Lab): Promise<void> {
  await restart(lab, {});
  await lab.node('a').daemon.waitForEvent('daemon.ready');
}

const file = (lab: Lab, name: string): string => join(lab.spaces.directory, name);

/** An authority and a certificate of etcd by it. @param days below zero: expired */
async function openTls(lab: Lab, days: number, address: string): Promise<Heal> {
  const script = `
cd ${lab.spaces.directory}
key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 $key -keyout ca.key -out ca.pem -subj /CN=ca -days 2
openssl req $key -keyout etcd.key -out etcd.csr -subj /CN=etcd
echo subjectAltName=IP:${address} >names
openssl x509 -req -in etcd.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out etcd.pem -days ${days} -extfile names`;
  await run(['bash', '-ec', script]);
  await lab.etcd.kill();
  await lab.etcd.start(['--cert-file', file(lab, 'etcd.pem'), '--key-file', file(lab, 'etcd.key')], 'https');
  await restart(lab, {
    'etcd-endpoints': lab.etcd.endpoint.replace('http:', 'https:'),
    'etcd-cafile': file(lab, 'ca.pem'),
  });
  return async () => {
    await lab.etcd.kill();
    await lab.etcd.start();
    await back(lab);
  };
}

const admin = ['--user', 'root:pw'];

/** @param held whether the role may write below held/ */
async function openUsers(lab: Lab, held: boolean): Promise<Heal> {
  const { etcd } = lab;
  for (const words of [
    'user add root:pw',
    'user grant-role root root',
    'role add part',
    'user add t:pw',
    'user grant-role t part',
  ])
    await etcd.ctl(words.split(' '));
  await etcd.ctl(['role', 'grant-permission', 'part', 'read', `${keyPrefix}/config`]);
  for (const name of ['subnets', ...(held ? ['held'] : [])])
    await etcd.ctl(['role', 'grant-permission', '--prefix=true', 'part', 'readwrite', `${keyPrefix}/${name}/`]);
  await etcd.ctl(['auth', 'enable']);
  writeFileSync(file(lab, 'password'), 'pw\n', { mode: 0o600 });
  await restart(lab, { 'etcd-username': 't', 'etcd-password-file': file(lab, 'password'), 'insecure-etcd': 'true' });
  return async () => {
    await etcd.ctl([...admin, 'auth', 'disable']);
    for (const words of ['user delete t', 'user delete root', 'role delete part']) await etcd.ctl(words.split(' '));
    await back(lab);
  };
}

async function fill(lab: Lab): Promise<Heal> {
  const { etcd } = lab;
  await etcd.kill();
  await etcd.start(['--quota-backend-bytes', '1200000']);
  await back(lab);
  for (let n = 0; n < 60; n++)
    if (
      await etcd.put(`/junk/${n}`, 'x'.repeat(100_000)).then(
        () => false,
        () => true,
      )
    )
      break;
  // The key must be made again, and cannot.
  await etcd.delete(`${keyPrefix}/subnets/${lab.node('a').subnet.replace('/', '-')}`);
  return async () => {
    await etcd.kill();
    await etcd.start(['--quota-backend-bytes', '100000000']);
    await etcd.ctl(['del', '--prefix', '/junk/']);
    await etcd.ctl(['alarm', 'disarm']);
    await back(lab);
  };
}

async function settle(host: LabHost, words: readonly string[]): Promise<void> {
  const { status, stderr } = await host.tool('lease', ...words);
  if (status !== 0) throw new Error(stderr);
}

export const storeRows: readonly DiagnosisRow[] = [
  {
    id: 'D1',
    what: 'wrong URL of etcd at start',
    on: 'a',
    status: /192\.0\.2\.254:2399/,
    isQuick: true,
    async inject(lab) {
      await restart(lab, { 'etcd-endpoints': 'http://192.0.2.254:2399' });
      return () => back(lab);
    },
    doctor: ['store-problem', /does not answer at http:\/\/192\.0\.2\.254:2399.*check that it runs.*etcd/],
  },
  {
    id: 'D2',
    what: 'etcd stops later',
    on: 'a',
    status: /etcd does not answer|no connection to/,
    isQuick: true,
    async inject(lab) {
      await lab.etcd.kill();
      return () => lab.etcd.start();
    },
    doctor: ['store-problem', /192\.0\.2\.254:2379.*check that it runs/],
  },
  {
    id: 'D4',
    what: 'the role lacks held/ at start',
    on: 'a',
    status: /held|role|permission/,
    inject: lab => openUsers(lab, false),
    doctor: ['store-problem', /role|permission/],
  },
  {
    id: 'D5',
    what: 'the role loses held/ later',
    on: 'a',
    status: /held|role|permission/,
    async inject(lab) {
      const heal = await openUsers(lab, true);
      await lab.node('a').daemon.waitForEvent('daemon.ready');
      await lab.etcd.ctl([...admin, 'role', 'revoke-permission', '--prefix=true', 'part', `${keyPrefix}/held/`]);
      return heal;
    },
    doctor: ['store-problem', /role|permission/],
    statusLimitMs: 40_000,
  },
  {
    id: 'D6',
    what: "etcd's certificate expired",
    on: 'a',
    status: /not valid now|expired/,
    inject: lab => openTls(lab, -1, '192.0.2.254'),
    doctor: ['store-problem', /certificate is not valid now: renew it, or set the clock/],
  },
  {
    id: 'D7',
    what: 'a wrong name in the certificate',
    on: 'a',
    status: /other\s+names|certificate/,
    inject: lab => openTls(lab, 2, '192.0.2.200'),
    doctor: ['store-problem', /certificate is for other names: give one of them/],
  },
  {
    id: 'D8',
    what: 'etcd out of space',
    on: 'a',
    status: /space/,
    inject: fill,
    doctor: ['store-problem', /space/],
    statusLimitMs: 30_000,
  },
  {
    id: 'D35',
    what: 'the lease about to end',
    on: 'a',
    status: /etcd|lease/,
    async inject(lab) {
      await restart(lab, { 'lease-ttl': '60' });
      await lab.node('a').daemon.waitForEvent('daemon.ready');
      await lab.etcd.kill();
      return async () => {
        await lab.etcd.start();
        await back(lab);
      };
    },
    doctor: ['lease-ending', /ends in \d+ s, and etcd does not answer.*bring etcd back/],
    statusLimitMs: 60_000,
  },
  {
    id: 'D36',
    what: 'the lease lost to another host',
    on: 'a',
    status: /lost/,
    async inject(lab) {
      await restart(lab, { 'on-lost': 'degraded' });
      const a = lab.node('a');
      await a.daemon.waitForEvent('daemon.ready');
      const key = a.subnet.replace('/', '-');
      await lab.etcd.delete(`${keyPrefix}/held/${key}`);
      await lab.etcd.delete(`${keyPrefix}/subnets/${key}`);
      await lab.etcd.put(`${keyPrefix}/subnets/${key}`, '{"PublicIP":"192.0.2.9","BackendType":"udp"}');
      return async () => {
        await lab.etcd.delete(`${keyPrefix}/subnets/${key}`);
        await back(lab);
      };
    },
    doctor: ['lease-lost', /lost.*another host.*restart tartand/],
  },
  {
    id: 'D37',
    what: 'the subnet reserved for another host',
    on: 'a',
    status: /lost|reserved/,
    async inject(lab) {
      await restart(lab, { 'on-lost': 'degraded' });
      const a = lab.node('a');
      await a.daemon.waitForEvent('daemon.ready');
      const { subnet } = a;
      const pid = (await a.status()).daemon?.pid ?? 0;
      // The tool asks the host, and refuses while that answers.
      process.kill(pid, 'SIGSTOP');
      try {
        await settle(a, ['release', '--force', subnet]);
        await settle(a, ['reserve', subnet, '--public-ip', '192.0.2.77']);
      } finally {
        process.kill(pid, 'SIGCONT');
      }
      return async () => {
        await a.tool('lease', 'release', '--force', subnet);
        await back(lab);
      };
    },
    doctor: ['lease-lost', /lost.*reserved it elsewhere.*restart tartand/],
  },
];

/** @param etcd the three members that the host of the lab uses */
export function memberRows(etcd: () => FaultEtcd): readonly DiagnosisRow[] {
  return [
    {
      id: 'D3',
      what: 'the member of etcd that is used is cut off from the two others',
      on: 'a',
      async inject(lab) {
        const { store } = await lab.node('a').status();
        const used = store?.endpoints.find(({ state }) => state === 'answers')?.url;
        const member = etcd().members.find(({ endpoint }) => endpoint === used);
        if (!member) throw new Error(`no member is used: ${JSON.stringify(store)}`);
        await member.partition();
        return () => run(lab.spaces.inside('e', ['nft', 'delete table inet partition']));
      },
      // Who is not in use is asked once a minute.
      healLimitMs: 70_000,
      doctor: ['endpoint-silent', /192\.0\.2\.254:\d+.*this member of etcd is down or cut off/],
    },
  ];
}
