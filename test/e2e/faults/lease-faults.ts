/** What can happen to one host's lease: pauses, deletes, thefts. The victim may lose the subnet, nobody gets it twice. */
import type { LabHost } from '../../support/lab-host.js';
import { check, type Fault } from './fault.js';
import type { FaultLab } from './lab.js';

/** An owner that nobody can reach: documentation address, not in the lab. */
const intruder = '{"PublicIP":"192.0.2.66","PublicIPv6":null,"nodeId":"intruder","bootId":"elsewhere"}';

export const leaseFaults: readonly Fault[] = [
  {
    name: 'the own key deleted by an operator',
    inject: async lab => {
      const key = lab.keyOf(lab.victim);
      await lab.etcd.write({ [key]: undefined });
      await within(lab, lab.eventMs, 'the key is there again', async () => (await lab.etcd.read(key)) !== undefined);
    },
  },
  {
    name: 'the etcd lease revoked',
    inject: async lab => {
      const key = lab.keyOf(lab.victim);
      const before = await lab.etcd.read(key);
      await lab.etcd.ask(etcd => etcd.leaseClient.leaseRevoke({ ID: before?.leaseId ?? '0' }));
      await within(lab, lab.eventMs, 'the key is there again', async () => {
        const now = await lab.etcd.read(key);
        return now !== undefined && now.leaseId !== before?.leaseId;
      });
    },
  },
  {
    name: 'the own key overwritten with another owner',
    lostMax: Infinity,
    peersMayGo: true,
    inject: async lab => {
      await lab.etcd.write({ [lab.keyOf(lab.victim)]: intruder });
      await losesAll(lab);
    },
    heal: giveBack,
  },
  {
    name: 'the daemon stopped for longer than its lease lives, the subnet still free',
    inject: async lab => {
      const key = lab.keyOf(lab.victim);
      lab.victim.daemon.signal('SIGSTOP');
      await within(lab, 3 * lab.ttlMs, 'the lease ended', async () => (await lab.etcd.read(key)) === undefined);
      lab.victim.daemon.signal('SIGCONT');
      await within(lab, lab.eventMs, 'the key is there again', async () => (await lab.etcd.read(key)) !== undefined);
    },
    heal: async lab => lab.victim.daemon.signal('SIGCONT'),
  },
  {
    name: 'the daemon stopped for longer than its lease lives, the subnet taken by another',
    lostMax: Infinity,
    peersMayGo: true,
    inject: async lab => {
      const key = lab.keyOf(lab.victim);
      lab.victim.daemon.signal('SIGSTOP');
      await within(lab, 3 * lab.ttlMs, 'the lease ended', async () => (await lab.etcd.read(key)) === undefined);
      const before = await Promise.all(lab.peers.map(generationOf));
      await lab.etcd.write({ [key]: intruder });
      for (const [index, peer] of lab.peers.entries())
        await within(lab, lab.eventMs, `${peer.letter} forwards to the new owner`, async () => {
          const owners = (await peer.status()).peers.map(({ publicIp }) => publicIp);
          return owners.includes('192.0.2.66') && (await generationOf(peer)) > (before[index] ?? Infinity);
        });
      // The data process of a stopped daemon goes on sending: the peers are the fence.
      const sending = await lab.flow(lab.victim, lab.peer);
      lab.victim.daemon.signal('SIGCONT');
      await losesAll(lab);
      const { received } = await sending.stop();
      check(received === 0, `no packet of the lost subnet accepted by ${lab.peer.letter}, not ${received}`);
      check((await lab.etcd.read(key))?.value === intruder, 'the key still of its new owner');
    },
    heal: giveBack,
  },
];

/** Of the route table that the data process works with. */
async function generationOf(host: LabHost): Promise<number> {
  return (await host.status()).datapath?.generationAdopted ?? 0;
}

/** LOST within a second, and the exit status that says so. */
export async function losesAll(lab: FaultLab, ms = lab.eventMs + 100): Promise<void> {
  const { daemon } = lab.victim;
  await within(lab, ms, 'LOST', async () => daemon.events('lease.lost').length > 0);
  const status = await daemon.end();
  check(status === 75, `exit status 75, not ${status}`);
}

/** The operator corrects the mistake, and the host starts again with what it had. */
export async function giveBack(lab: FaultLab): Promise<void> {
  const { victim } = lab;
  victim.daemon.signal('SIGCONT');
  const key = lab.keyOf(victim);
  if ((await lab.etcd.read(key))?.value === intruder) await lab.etcd.write({ [key]: undefined });
  if (victim.daemon.running) await victim.stopDaemon();
  await lab.restart();
}

async function within(lab: FaultLab, ms: number, what: string, holds: () => Promise<boolean>): Promise<void> {
  const patience = lab.patience(ms);
  while (!(await holds())) {
    check(!patience.isOver, `${what} within ${Math.round(ms)} ms`);
    await lab.stay(10);
  }
}
