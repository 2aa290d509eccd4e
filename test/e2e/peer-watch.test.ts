/** What goes wrong between hosts is told by the status of one that suffers from it, with its cause, within ten seconds. */
import { hostname } from 'node:os';
import { expect, test } from 'vitest';
import type { PeerWatched, Status } from '../../src/agent/status.js';
import type { LabHost } from '../support/lab-host.js';
import { run, until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b', 'c', 'd'] }, async opened => {
  // The switch swallows what is longer than 1400 bytes: it takes four more, for a VLAN tag.
  await run(opened.spaces.inside('u', ['ip', 'link', 'set', 'pd', 'mtu', '1396']));
  await opened.bringUp();
});
const narrow = /^the path to 192\.0\.2\.4 carries packets of 13(64|72) bytes, the tunnel has 1464/;
/** A pair with traffic is asked each 5 s, and thrice within 3 s before it is silent: 10 s, and some for a busy machine. */
const toldMs = 14_000;

const watchedBy = async (from: LabHost, of: LabHost): Promise<PeerWatched | undefined> => {
  const { peers } = await from.status();
  return peers.find(({ publicIp }) => publicIp === of.address)?.watched ?? undefined;
};

/** Meanwhile containers of the host want to reach those of the others. */
async function whileTalking<T>(from: LabHost, to: readonly LabHost[], work: () => Promise<T>): Promise<T> {
  const talk = (): void => {
    for (const host of to) from.pingFromContainer(host.containerAddress).catch(() => {});
  };
  talk();
  const timer = setInterval(talk, 1_000);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}

async function untilTold(
  from: LabHost,
  to: readonly LabHost[],
  what: readonly (readonly [LabHost, RegExp])[],
): Promise<Status> {
  const began = performance.now();
  const told = async (): Promise<boolean> => {
    const all = await Promise.all(
      what.map(async ([host, reason]) => reason.test((await watchedBy(from, host))?.reason ?? '')),
    );
    return all.every(Boolean);
  };
  const wanted = what.map(([host, reason]) => `${host.letter} ${String(reason)}`).join(', ');
  await whileTalking(from, to, () => until(`${from.letter} tells ${wanted}`, told, toldMs));
  console.log(`told after ${((performance.now() - began) / 1000).toFixed(1)} s`);
  return from.status();
}

async function untilUp(from: LabHost, to: readonly LabHost[]): Promise<void> {
  const up = async (): Promise<boolean> => {
    const { peers, problems } = await from.status();
    const others = problems.filter(text => !text.startsWith('the path to 192.0.2.4 carries'));
    if (others.length > 0) throw new Error(others.join('; '));
    return to.every(host => peers.find(({ publicIp }) => publicIp === host.address)?.watched?.state === 'up');
  };
  await whileTalking(from, to, () => until(`all are up for ${from.letter}`, up));
}

/** Both ends of the underlay of a host, and one rule for UDP 8285. */
async function block(host: LabHost, ...rules: readonly string[]): Promise<void> {
  const chains = ['input', 'output'].map(hook => `chain ${hook} { type filter hook ${hook} priority 0; };`).join(' ');
  await host.run('nft', `table ip fault { ${chains} }`);
  for (const rule of rules) await host.run('nft', `add rule ip fault ${rule}`);
}
const heal = (host: LabHost): Promise<string> => host.run('nft', 'delete table ip fault');
const nodes = (): LabHost[] => ['a', 'b', 'c', 'd'].map(letter => lab().node(letter));

test('all peers are up, each by name, with its round trip', async () => {
  const [a, ...others] = nodes() as [LabHost, ...LabHost[]];
  await untilUp(a, others);
  // A peer that asks first is up before a question of ours is answered.
  const first = await until('an answer', async () => {
    const [peer] = (await a.status()).peers;
    return peer?.watched?.roundTripMs ? peer : undefined;
  });
  expect(first).toMatchObject({ hostName: hostname(), watched: { reason: null, loss: 0 } });
  expect(first.watched?.roundTripMs?.p50).toBeGreaterThan(0);
});

test('fault D10, fault D19: UDP blocked both ways, and a host whose tartand and data process are dead', async () => {
  const [a, b, c, d] = nodes() as [LabHost, LabHost, LabHost, LabHost];
  await block(b, 'input udp dport 8285 drop', 'output udp dport 8285 drop');
  const pid = await c.datapathPid();
  await c.stopDaemon('SIGKILL');
  process.kill(pid, 'SIGKILL');
  const status = await untilTold(
    a,
    [b, c, d],
    [
      [b, /^192\.0\.2\.2 is silent, 1 other peer answers, its host answers ping: UDP 8285 is blocked on the way/],
      [c, /^192\.0\.2\.3 refuses UDP 8285 \(ICMP port unreachable\): no tartan data process listens there/],
    ],
  );
  expect(status.health?.state).toBe('impaired');
  expect(status.summary).toMatch(/^impaired, 1 of 3 peers answers, etcd answered \d+ s ago: 192\.0\.2\.[23] /);
  expect((await watchedBy(a, c))?.nextStep).toContain('ss -lun sport = 8285');
  expect((await watchedBy(a, d))?.state).toBe('up');
  await heal(b);
  await c.startDaemon().waitForEvent('daemon.ready');
  await untilUp(a, [b, c, d]);
});

test('fault D11, fault D17: one way only, and a host that is off', async () => {
  const [a, b, c, d] = nodes() as [LabHost, LabHost, LabHost, LabHost];
  await block(b, 'input udp dport 8285 drop');
  await run(lab().spaces.inside('u', ['ip', 'link', 'set', 'pc', 'down']));
  await a.run('ip', 'neighbour', 'flush', 'all');
  // b is heard, because it wants through too.
  await whileTalking(b, [a], () =>
    untilTold(
      a,
      [b, c, d],
      [
        [b, /^we hear 192\.0\.2\.2 and it does not answer: UDP 8285 from here to there is blocked/],
        [c, /^192\.0\.2\.3 does not answer ARP on eth0 \(powered off, another network, wrong interface\)$/],
      ],
    ),
  );
  await heal(b);
  await run(lab().spaces.inside('u', ['ip', 'link', 'set', 'pc', 'up']));
  await untilUp(a, [b, c, d]);
});

test('fault D12: the firewall of this host', async () => {
  const [a, b, ...others] = nodes() as [LabHost, LabHost, ...LabHost[]];
  await block(a, 'input udp dport 8285 drop');
  const reason = /^this host hears none of [23] peers: UDP 8285 does not come in or go out here/;
  const { summary } = await untilTold(a, [b, ...others], [[b, reason]]);
  expect(summary).toContain('this host hears none of');
  await heal(a);
  await untilUp(a, [b, ...others]);
});

test('fault D21: a path that swallows long packets is told with both numbers', async () => {
  const [a, ...others] = nodes() as [LabHost, ...LabHost[]];
  const told = async (): Promise<boolean> => {
    const { problems, peers } = await a.status();
    if (problems.some(text => narrow.test(text))) return true;
    throw new Error(JSON.stringify([problems, peers.map(({ publicIp, watched }) => [publicIp, watched?.pathMtu.out])]));
  };
  await whileTalking(a, others, () => until('the narrow path is told', told, 40_000));
  const { peers, summary } = await a.status();
  // By the kernel 36 bytes less than the switch takes, by user space 28.
  expect([1364, 1372]).toContain(peers.find(({ publicIp }) => publicIp === '192.0.2.4')?.watched?.pathMtu.out);
  expect(summary).toMatch(/^impaired, 3 of 3 peers answer, etcd answered \d+ s ago: the path to 192\.0\.2\.4/);
});
