/** `tartan cleanup` takes everything of ours and nothing else: the kernel says the same before the first start and after. */
import { expect, test } from 'vitest';
import { dumpHost } from '../support/host-dump.js';
import type { LabHost } from '../support/lab-host.js';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b', 'c'] });

/** What others have on a host, some of it where ours belongs. */
async function furnish(host: LabHost): Promise<void> {
  for (const line of [
    'iptables -A FORWARD -s 203.0.113.0/24 -j DROP',
    'iptables -t nat -A PREROUTING -p tcp --dport 81 -j REDIRECT --to-ports 80',
    'nft add table inet guard',
    'nft add chain inet guard input { type filter hook input priority 0 ; policy accept ; }',
    'nft add rule inet guard input ip saddr 203.0.113.7 drop',
    'nft add table ip raw',
    'ip route add 198.51.100.0/24 via 192.0.2.253 proto static',
    'ip route add unreachable 10.5.0.0/16 metric 9999 proto 99',
    'ip rule add from 203.0.113.9 lookup 100',
    'ip route add default via 192.0.2.253 table 100',
    'ip link add other type bridge',
    'ip address add 198.18.0.1/24 dev other',
  ])
    await host.run(...line.split(' '));
}

async function lifeOf(host: LabHost): Promise<void> {
  await host.startDaemon().waitForEvent('daemon.ready');
  expect(await host.run('nft', 'list', 'ruleset')).toContain('tartan');
  await host.stopDaemon();
  const { status, stdout, stderr } = await host.tool('cleanup');
  expect(status, stdout + stderr).toBe(0);
}

test.each([
  ['a host without any rule', 'a', async () => {}],
  ['a host where others have theirs', 'b', furnish],
] as const)('%s', async (_, letter, prepare) => {
  const host = lab().node(letter);
  await prepare(host);
  const before = await dumpHost(host);
  await lifeOf(host);
  expect(await dumpHost(host)).toBe(before);
  // Once more, over what the first life left.
  await lifeOf(host);
  expect(await dumpHost(host)).toBe(before);
});

test('what others put into a table of our making stays, with the table', async () => {
  const c = lab().node('c');
  await c.startDaemon().waitForEvent('daemon.ready');
  await c.run('iptables', '-t', 'raw', '-A', 'OUTPUT', '-d', '203.0.113.0/24', '-j', 'DROP');
  await c.run('iptables', '-A', 'FORWARD', '-d', '203.0.113.0/24', '-j', 'DROP');
  await c.stopDaemon();
  expect((await c.tool('cleanup')).status).toBe(0);
  const saved = await c.run('iptables-save');
  expect(saved).toMatch(/-A OUTPUT -d 203\.0\.113\.0\/24 -j DROP/);
  expect(saved).toMatch(/-A FORWARD -d 203\.0\.113\.0\/24 -j DROP/);
  // Not iptables-save: it lists chains that are not there.
  expect(await c.run('nft', 'list', 'ruleset')).not.toMatch(/tartan|PREROUTING|table ip nat/i);
});

test('fault U8: cleanup says that docker0 keeps its address, with the command', async () => {
  const c = lab().node('c');
  await c.startDaemon().waitForEvent('daemon.ready');
  const { subnet } = c;
  await c.stopDaemon();
  await c.run('ip', 'link', 'add', 'docker0', 'type', 'bridge');
  await c.run('ip', 'address', 'add', subnet.replace('.0/', '.1/'), 'dev', 'docker0');
  const { status, stderr } = await c.tool('cleanup');
  await c.run('ip', 'link', 'del', 'docker0');
  expect([status, stderr]).toEqual([
    0,
    expect.stringContaining(`docker0 has ${subnet.replace('.0/', '.1/')} and keeps it`),
  ]);
  expect(stderr).toContain('systemctl restart docker');
});

test('fault F10: what flannel left is told with the command, which removes exactly that, under a running daemon', async () => {
  const b = lab().node('b');
  await b.startDaemon().waitForEvent('daemon.ready');
  const rules = async (): Promise<string> =>
    [await b.run('iptables-nft-save'), await b.run('iptables-legacy-save'), await b.run('nft', '-s', 'list', 'tables')]
      .join('\n')
      .replace(/^#.*\n?|\[\d+:\d+\]/gm, '');
  for (const program of ['iptables-nft', 'iptables-legacy'])
    for (const line of [
      'nat -A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE',
      'filter -A FORWARD -s 203.0.113.9 -j DROP',
    ])
      await b.run(program, '-t', ...line.split(' '));
  // Those of the engine kernel come once it receives.
  await until('all rules of ours', async () => (await rules()).includes('--dport 4790'));
  const before = await rules();
  for (const program of ['iptables-nft', 'iptables-legacy'])
    for (const line of [
      'nat -N FLANNEL-POSTRTG',
      'nat -A FLANNEL-POSTRTG -s 10.5.0.0/16 ! -d 224.0.0.0/4 -m comment --comment FLANNEL -j MASQUERADE',
      'nat -A POSTROUTING -m comment --comment FLANNEL -j FLANNEL-POSTRTG',
      'filter -N FLANNEL-FWD',
      'filter -A FLANNEL-FWD -s 10.5.0.0/16 -j ACCEPT',
      'filter -A FORWARD -j FLANNEL-FWD',
    ])
      await b.run(program, '-t', ...line.replace('FLANNEL -j', 'flanneld_masq -j').split(' '));
  await b.run('nft', 'add', 'table', 'ip', 'flannel-ipv4');
  // A pass between two of the commands tells of the rules so far.
  const leftover = /^rule_leftover.*nat FLANNEL-POSTRTG, filter FLANNEL-FWD.*tartan cleanup --flannel/;
  await until('told', async () => (await b.status()).problems.some(text => leftover.test(text)));
  const { status, stdout, stderr } = await b.tool('cleanup', '--flannel');
  expect(status, stderr).toBe(0);
  expect(stdout.match(/^removed by .*/gm)).toHaveLength(5);
  expect(await rules()).toBe(before);
  expect((await b.tool('cleanup', '--flannel')).stdout).toBe('nothing of flannel was here\n');
  await until('told no more', async () => (await b.status()).problems.every(text => !text.startsWith('rule_leftover')));
  await b.stopDaemon();
});
