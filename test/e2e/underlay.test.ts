/**
 * What happens to the network below and around the tunnel: addresses, MTUs, links, routes and rules change under traffic.
 * Ours is restored or adapted in time, and what is not ours stays byte for byte.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { beforeAll, expect, test } from 'vitest';
import { dumpForeign } from '../support/host-dump.js';
import type { LabHost } from '../support/lab-host.js';
import { run, until } from '../support/tools.js';
import type { FlowReport } from '../support/traffic.js';
import { useLab } from '../support/use-lab.js';

const gateway = '192.0.2.253';
const lab = useLab({ nodes: ['a', 'b', 'c'] }, opened => opened.bringUp());

const nodes = (): { readonly a: LabHost; readonly b: LabHost; readonly c: LabHost } => ({
  a: lab().node('a'),
  b: lab().node('b'),
  c: lab().node('c'),
});

beforeAll(async () => {
  for (const line of [
    'nft add table inet guard',
    'nft add chain inet guard input { type filter hook input priority 0 ; policy accept ; }',
    'nft add rule inet guard input ip saddr 203.0.113.7 drop',
    'iptables -A FORWARD -s 203.0.113.0/24 -j DROP',
    'ip route add 198.51.100.0/24 via 192.0.2.253 proto static',
    'ip rule add from 203.0.113.9 lookup 100',
  ])
    await lab()
      .node('a')
      .run(...line.split(' '));
});

/** Milliseconds until the answer is yes. */
async function tookMs(what: string, ask: () => Promise<boolean>): Promise<number> {
  const began = performance.now();
  await until(what, ask);
  return performance.now() - began;
}

/** Both of ours, and none for the network on another link: the right one comes before the wrong one goes. */
async function hasRoutes(host: LabHost): Promise<boolean> {
  const routes = await host.run('ip', 'route');
  return (
    /^10\.5\.0\.0\/16 dev tartan0 /m.test(routes) &&
    /^unreachable 10\.5\.0\.0\/16 .*metric 4096/m.test(routes) &&
    !/^10\.5\.0\.0\/16 dev eth0 /m.test(routes)
  );
}

/** Two flows from a, while that is done; none of that to c may be lost. */
async function during(work: () => Promise<void>): Promise<{ readonly toB: FlowReport; readonly toC: FlowReport }> {
  const { a, b, c } = nodes();
  const flows = [await lab().flow(a, b), await lab().flow(a, c)] as const;
  await delay(300);
  await work();
  await delay(300);
  return { toB: await flows[0].stop(), toC: await flows[1].stop() };
}

async function expectTraffic(): Promise<void> {
  const { a, b, c } = nodes();
  for (const to of [b, c]) await until(`a reaches ${to.letter}`, () => a.pingFromContainer(to.containerAddress));
}

/** Runs what is about the sockets of the data process while no packet goes by the kernel. */
async function byUserSpace(work: () => Promise<void>): Promise<void> {
  const wanted = async (): Promise<string | undefined> => (await lab().node('a').status()).datapath?.kernel?.wanted;
  await lab().setNetwork('{"Network":"10.5.0.0/16","Engine":"user"}');
  await until('user space', async () => (await wanted()) === 'user');
  await work();
  await lab().setNetwork();
  await until('the kernel engine again', async () => (await wanted()) === 'auto');
}

/** Percent of one processor that both programs of a host take. */
async function load(host: LabHost, ms: number): Promise<number> {
  const pids = [host.daemon.pid, await host.datapathPid()];
  const ticks = (): number =>
    pids
      .map(pid => readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [])
      .reduce((sum, fields) => sum + Number(fields[11]) + Number(fields[12]), 0);
  const before = ticks();
  await delay(ms);
  // A hundred ticks a second: sysconf(_SC_CLK_TCK) of Linux.
  return ((ticks() - before) * 1000) / ms;
}

test('other addresses and another default route: nothing moves (N5)', async () => {
  const { a } = nodes();
  const before = await a.status();
  const { toB } = await during(async () => {
    await a.run('ip', 'link', 'add', 'other', 'type', 'bridge');
    await a.run('ip', 'link', 'set', 'other', 'up');
    await a.run('ip', 'address', 'add', '198.18.7.1/24', 'dev', 'other');
    await a.run('ip', 'address', 'add', '192.0.2.201/24', 'dev', 'eth0');
    await a.run('ip', 'route', 'replace', 'default', 'via', '198.18.7.254');
    await delay(500);
    await a.run('ip', 'route', 'replace', 'default', 'via', gateway);
    await a.run('ip', 'address', 'del', '192.0.2.201/24', 'dev', 'eth0');
    await a.run('ip', 'link', 'del', 'other');
    await delay(500);
  });
  const after = await a.status();
  expect([after.node, after.interface, after.datapath?.pid]).toEqual([
    before.node,
    before.interface,
    before.datapath?.pid,
  ]);
  expect(toB).toMatchObject({ lost: 0, reordered: 0, duplicates: 0 });
});

test('the link flaps: lost is only what was sent while it was down (N1)', async () => {
  const { a, b } = nodes();
  const foreign = await dumpForeign(a);
  const downMs: number[] = [];
  const { toB } = await during(async () => {
    for (let flap = 0; flap < 3; flap++) {
      const began = performance.now();
      await a.run('ip', 'link', 'set', 'eth0', 'down');
      await delay(500);
      await a.run('ip', 'link', 'set', 'eth0', 'up');
      // The kernel looks at carriers once a second at most, at both ends of the cable.
      for (const end of [
        a.inside(['ip', 'link', 'show', 'eth0']),
        lab().spaces.inside('u', ['ip', 'link', 'show', 'pa']),
      ])
        await until('a carrier', async () => (await run(end)).includes('state UP'));
      downMs.push(performance.now() - began);
      // The kernel flushed them, and whoever made them makes them again.
      await a.run('ip', 'route', 'add', 'default', 'via', gateway);
      await a.run('ip', 'route', 'add', '198.51.100.0/24', 'via', gateway, 'proto', 'static');
      // A gap that is still open would grow by the next flap.
      await until('a reaches b', () => a.pingFromContainer(b.containerAddress));
    }
  });
  const total = downMs.reduce((sum, ms) => sum + ms, 0);
  process.stdout.write(`down ${Math.round(total)} ms in 3 flaps: ${JSON.stringify(toB)}\n`);
  expect(toB.lost).toBeGreaterThan(500);
  // A question for the neighbour's address that was lost is asked again after a second (arp(7), retrans_time).
  expect(toB.lost).toBeLessThanOrEqual(total + 3 * 1100);
  expect(toB.longestGapMs).toBeLessThanOrEqual(2 * Math.max(...downMs) + 1100);
  expect(await hasRoutes(a)).toBe(true);
  expect(await dumpForeign(a)).toBe(foreign);
});

test('the TUN is deleted: made again with its routes within a second, and nothing spins (N2)', async () => {
  const { a } = nodes();
  const foreign = await dumpForeign(a);
  await a.run('ip', 'link', 'del', 'tartan0');
  const ms = await tookMs('link and routes', () => hasRoutes(a));
  process.stdout.write(`after ${Math.round(ms)} ms\n`);
  expect(ms).toBeLessThanOrEqual(1000);
  await expectTraffic();
  expect(await load(a, 3000)).toBeLessThan(5);
  expect(await dumpForeign(a)).toBe(foreign);
});

test('the TUN is set down: up again with its routes within a second (N3)', async () => {
  const { a } = nodes();
  const pid = await a.datapathPid();
  await a.run('ip', 'link', 'set', 'tartan0', 'down');
  const ms = await tookMs('routes', () => hasRoutes(a));
  process.stdout.write(`after ${Math.round(ms)} ms\n`);
  expect(ms).toBeLessThanOrEqual(1000);
  await expectTraffic();
  expect(await a.datapathPid()).toBe(pid);
});

test.each([
  ['del', '10.5.0.0/16', 'dev', 'tartan0'],
  ['del', 'unreachable', '10.5.0.0/16', 'metric', '4096'],
  ['change', '10.5.0.0/16', 'dev', 'eth0', 'proto', '167'],
])('ip route %s %s %s %s: restored within a second (N12)', async (...words) => {
  const { a } = nodes();
  const foreign = await dumpForeign(a);
  await a.run('ip', 'route', ...words);
  expect(await tookMs('routes', () => hasRoutes(a))).toBeLessThanOrEqual(1000);
  await expectTraffic();
  expect(await dumpForeign(a)).toBe(foreign);
});

test('a route of somebody else to a subnet of ours stays and is named (N11)', async () => {
  const { a, b } = nodes();
  const { toC } = await during(async () => {
    await a.run('ip', 'route', 'add', b.subnet, 'via', gateway, 'proto', 'static');
    const foreign = await dumpForeign(a);
    await until('an alarm', async () => (await a.status()).problems.some(text => text.startsWith('route_conflict')));
    await a.daemon.waitForEvent('host.conflict');
    await delay(1000);
    expect(await dumpForeign(a)).toBe(foreign);
    await a.run('ip', 'route', 'del', b.subnet, 'via', gateway);
  });
  await until('no alarm', async () => (await a.status()).problems.length === 0);
  expect(toC.lost).toBe(0);
  await expectTraffic();
});

test('fault B4: a bridge of the host at the subnet of a peer is named with the peer that it hides', async () => {
  const { a, b } = nodes();
  await a.run('ip', 'link', 'add', 'br-own', 'type', 'bridge');
  await a.run('ip', 'link', 'set', 'br-own', 'up');
  await a.run('ip', 'address', 'add', b.subnet.replace('.0/', '.77/'), 'dev', 'br-own');
  const told = await until('an alarm', async () =>
    (await a.status()).problems.find(text => text.startsWith(`route_conflict ${b.subnet} `)),
  );
  expect(told).toMatch(/dev br-own .*, hides 10\.5\.\d+\.0\/24 of 192\.0\.2\.2$/);
  await a.run('ip', 'link', 'del', 'br-own');
  await until('no alarm', async () => (await a.status()).problems.length === 0);
  await expectTraffic();
});

test('nft flush ruleset: ours come back, and nothing else (N13)', async () => {
  const { a } = nodes();
  const rules = async (): Promise<string> => (await a.run('iptables-save')).replace(/^#.*$|\[\d+:\d+\]/gm, '');
  const before = await rules();
  const foreign = (await dumpForeign(a)).split('\n').filter(line => !/^\{"(table|chain|rule)"/.test(line));
  const { toB, toC } = await during(async () => {
    await a.run('nft', 'flush', 'ruleset');
    // As often as tartand looks, and the look itself.
    expect(await tookMs('our rules', async () => (await rules()).includes('TARTAN'))).toBeLessThanOrEqual(6000);
  });
  expect([toB.lost, toC.lost]).toEqual([0, 0]);
  expect((await rules()).split('\n').sort()).toEqual(
    before
      .split('\n')
      .filter(line => !line.includes('203.0.113.0'))
      .sort(),
  );
  expect((await dumpForeign(a)).split('\n')).toEqual(foreign);
});

test('what fails for one peer touches no other: a rule, a route (N9)', async () =>
  byUserSpace(async () => {
    const { a, b } = nodes();
    const before = await a.counters();
    const { toB, toC } = await during(async () => {
      await a.run('nft', 'add', 'table', 'ip', 'wall');
      await a.run('nft', 'add', 'chain', 'ip', 'wall', 'out', '{ type filter hook output priority 0 ; }');
      await a.run('nft', 'add', 'rule', 'ip', 'wall', 'out', 'ip', 'daddr', b.address, 'udp', 'dport', '8285', 'drop');
      await delay(300);
      await a.run('nft', 'delete', 'table', 'ip', 'wall');
      await a.run('ip', 'route', 'add', 'unreachable', b.address);
      await delay(300);
      expect(await load(a, 1000)).toBeLessThan(50);
      await a.run('ip', 'route', 'del', 'unreachable', b.address);
    });
    const after = await a.counters();
    const more = (name: string): number => (after[name] ?? 0) - (before[name] ?? 0);
    expect(more('tx_error_perm')).toBeGreaterThan(100);
    expect(more('tx_error_unreach')).toBeGreaterThan(100);
    expect(more('tx_error_perm') + more('tx_error_unreach')).toBe(toB.lost);
    expect(toC.lost).toBe(0);
    // The end of the flow arrives.
    expect(toB.lastLost).toBeLessThan(toB.sent - 50);
  }));

test('an underlay that takes too little: counted, no spinning, and the daemon answers (N8)', async () =>
  byUserSpace(async () => {
    const { a, b } = nodes();
    await a.run('tc', 'qdisc', 'add', 'dev', 'eth0', 'root', 'tbf', 'rate', '1mbit', 'burst', '2k', 'limit', '100m');
    const flow = await lab().flow(a, b, 20_000);
    try {
      await until('a full socket', async () => ((await a.counters())['tx_error_nobufs'] ?? 0) > 1000);
      const began = performance.now();
      await a.status();
      expect(performance.now() - began).toBeLessThan(500);
    } finally {
      await a.run('tc', 'qdisc', 'del', 'dev', 'eth0', 'root');
    }
    await flow.stop();
    await expectTraffic();
  }));

test('a peer without a listener: its ICMP errors reach nobody else (N10)', async () => {
  const { a, b } = nodes();
  const pid = await b.datapathPid();
  const before = await a.counters();
  const { toC } = await during(async () => {
    await b.stopDaemon('SIGKILL');
    process.kill(pid, 'SIGKILL');
    await delay(500);
  });
  expect(toC.lost).toBe(0);
  expect((await a.counters())['rx_socket_errors']).toBe(before['rx_socket_errors']);
  await b.startDaemon().waitForEvent('daemon.ready');
  await lab().waitForRoutes();
  await expectTraffic();
});

test("the tunnel's forwarding is put right, rp_filter=1 does no harm (N15)", async () => {
  const { a } = nodes();
  await a.run('sysctl', '-q', '-w', 'net.ipv4.conf.all.rp_filter=1', 'net.ipv4.conf.tartan0.rp_filter=1');
  await expectTraffic();
  const setting = 'net.ipv4.conf.tartan0.forwarding';
  await a.run('sysctl', '-q', '-w', `${setting}=0`);
  await until('forwarding', async () => (await a.run('sysctl', '-n', setting)) === '1\n');
  await expectTraffic();
});

async function setMtu(mtu: number): Promise<void> {
  const onSwitch = async (link: string): Promise<void> => {
    await run(lab().spaces.inside('u', ['ip', 'link', 'set', link, 'mtu', String(mtu)]));
  };
  for (const { letter } of lab().hosts) {
    await lab().node(letter).run('ip', 'link', 'set', 'eth0', 'mtu', String(mtu));
    await onSwitch(`p${letter}`);
  }
  await onSwitch('br0');
}

test.each([1400, 9000, 1500])('MTU %i of the underlay: the tunnel and the files of Docker follow (N6)', async mtu => {
  const { a, b } = nodes();
  const inner = mtu - 36;
  const { toB, toC } = await during(() => setMtu(mtu));
  for (const host of lab().hosts) {
    await until('the MTU of the link', async () =>
      (await host.run('ip', 'link', 'show', 'tartan0')).includes(`mtu ${inner} `),
    );
    await until('the files', () => readFileSync(host.subnetFile, 'utf8').includes(`FLANNEL_MTU=${inner}\n`));
    expect(readFileSync(host.dockerEnvFile, 'utf8')).toContain(`--mtu=${inner}`);
    expect((await host.status()).interface?.mtu).toBe(mtu);
  }
  expect([toB.lost, toC.lost]).toEqual([0, 0]);
  // The largest packet passes whole, a larger one is refused on the spot.
  const ping = (bytes: number): Promise<string> =>
    a.run('ping', '-c', '1', '-W', '2', '-M', 'do', '-s', String(bytes - 28), b.tunnelAddress);
  expect(await ping(inner)).toContain(' 0% packet loss');
  await expect(ping(inner + 1)).rejects.toThrow(/too long/);
});

test('an address inside the overlay is refused, and the old one is waited for (N16)', async () => {
  const { a } = nodes();
  const before = await a.status();
  await a.run('ip', 'address', 'del', '192.0.2.1/24', 'dev', 'eth0');
  await a.run('ip', 'address', 'add', '10.5.200.1/24', 'dev', 'eth0');
  await a.run('ip', 'route', 'add', 'default', 'dev', 'eth0');
  await until('a refusal', async () =>
    (await a.status()).problems.some(text => text.includes('10.5.0.0/16 contains 10.5.200.1')),
  );
  expect((await a.status()).node).toEqual(before.node);
  await a.run('ip', 'address', 'del', '10.5.200.1/24', 'dev', 'eth0');
  await a.run('ip', 'address', 'add', '192.0.2.1/24', 'dev', 'eth0');
  await a.run('ip', 'route', 'replace', 'default', 'via', gateway);
  await until('no problem', async () => {
    const { problems } = await a.status();
    if (problems.length > 0) throw new Error(problems.join('; '));
    return true;
  });
  await expectTraffic();
});

test('another address of our own: published, and peers follow within two seconds; the subnet stays (N4)', async () => {
  const { a, b, c } = nodes();
  const { subnet } = a;
  const address = '192.0.2.101';
  const flows = [await lab().flow(a, b), await lab().flow(b, a), await lab().flow(b, c)] as const;
  await delay(300);
  const began = performance.now();
  await a.run('ip', 'address', 'del', '192.0.2.1/24', 'dev', 'eth0');
  await a.run('ip', 'address', 'add', `${address}/24`, 'dev', 'eth0');
  await a.run('ip', 'route', 'add', 'default', 'via', gateway);
  for (const peer of [b, c])
    await until('the new address', async () =>
      (await peer.status()).peers.some(one => one.subnet === subnet && one.publicIp === address),
    );
  process.stdout.write(`peers followed after ${Math.round(performance.now() - began)} ms\n`);
  await delay(500);
  const [out, back, others] = [await flows[0].stop(), await flows[1].stop(), await flows[2].stop()];
  process.stdout.write(`${JSON.stringify(out)}\n${JSON.stringify(back)}\n`);
  expect(out.longestGapMs).toBeLessThanOrEqual(2000);
  expect(back.longestGapMs).toBeLessThanOrEqual(2000);
  expect(others.lost).toBe(0);
  expect(a.subnet).toBe(subnet);
  expect(await lab().etcd.get(`/coreos.com/network/subnets/${subnet.replace('/', '-')}`)).toContain(address);
  expect((await a.status()).node.publicIp).toBe(address);
  await expectTraffic();
  // The connection to etcd is another one too: what comes later is heard.
  await lab().etcd.put('/coreos.com/network/subnets/10.5.207.0-24', '{"PublicIP":"192.0.2.77","BackendType":"udp"}');
  await until('a new peer', async () => (await a.peerSubnets()).includes('10.5.207.0/24'), 3000);
});
