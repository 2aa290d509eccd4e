/** D9 to D23: faults of the way between the hosts. */
import type { Lab } from '../../support/lab.js';
import { attempt, run } from '../../support/tools.js';
import type { DiagnosisRow, Heal } from './row.js';

/** Rules of a host, or of the switch `u`, in a table of their own. @returns what removes them */
async function rules(lab: Lab, letter: string, family: string, chain: string, rule: string): Promise<Heal> {
  const inside = (text: string): Promise<string> => run(lab.spaces.inside(letter, ['nft', '-f', '-']), { input: text });
  await inside(`table ${family} fault { chain c { ${chain}\n${rule}\n}\n}\n`);
  return () => inside(`delete table ${family} fault\n`);
}

const input = 'type filter hook input priority 0;';
const output = 'type filter hook output priority 0;';
const forward = 'type filter hook forward priority 0;';

/** Traffic that wants through, from a to this host, until the fault is healed. */
async function underTraffic(lab: Lab, to: string, inject: () => Promise<Heal>): Promise<Heal> {
  const flow = await lab.flow(lab.node('a'), lab.node(to), 50);
  const heal = await inject();
  return async () => {
    await heal();
    await flow.stop();
  };
}

async function onSwitch(lab: Lab, words: readonly string[]): Promise<void> {
  await run(['ip', '-n', lab.spaces.name('u'), ...words]);
}

/** A second network card of host a, on a network where no peer is. */
async function secondCard(lab: Lab): Promise<Heal> {
  const a = lab.spaces.name('a');
  await run(['ip', '-n', a, 'link', 'add', 'eth1', 'type', 'veth', 'peer', 'name', 'eth1p']);
  await run(['ip', '-n', a, 'address', 'add', '198.51.100.1/24', 'dev', 'eth1']);
  for (const name of ['eth1', 'eth1p']) await run(['ip', '-n', a, 'link', 'set', name, 'up']);
  return () => run(['ip', '-n', a, 'link', 'del', 'eth1']);
}

async function restart(lab: Lab, letter: string, flags: Readonly<Record<string, string>>): Promise<void> {
  await lab.node(letter).stopDaemon();
  await lab.node(letter).bringUp(flags);
}

/** Packets to b go by the switch as a router whose next link carries less. */
async function narrow(lab: Lab): Promise<Heal> {
  const u = lab.spaces.name('u');
  const b = lab.node('b').address;
  await run(
    lab.spaces.inside('u', [
      'sysctl',
      '-qw',
      'net.ipv4.ip_forward=1',
      'net.ipv4.conf.all.send_redirects=0',
      'net.ipv4.conf.br0.send_redirects=0',
    ]),
  );
  await run(['ip', '-n', u, 'route', 'add', `${b}/32`, 'dev', 'br0', 'mtu', 'lock', '1300']);
  await run(['ip', '-n', lab.spaces.name('a'), 'route', 'add', `${b}/32`, 'via', '192.0.2.253']);
  return async () => {
    await run(['ip', '-n', lab.spaces.name('a'), 'route', 'del', `${b}/32`]);
    // The kernel keeps for ten minutes what the router told (mtu_expires), and refuses longer questions till then.
    await run(['ip', '-n', lab.spaces.name('a'), 'route', 'flush', 'cache']);
    await run(['ip', '-n', u, 'route', 'del', `${b}/32`]);
  };
}

const silentB = /192\.0\.2\.2/;

export const underlayRows: readonly DiagnosisRow[] = [
  {
    id: 'D9',
    what: 'UDP port blocked in at the peer',
    on: 'a',
    status: silentB,
    peers: /silent/,
    inject: lab => underTraffic(lab, 'b', () => rules(lab, 'b', 'inet', input, 'udp dport 8285 drop')),
    doctor: ['peer-silent', /8285/],
    isQuick: true,
  },
  {
    id: 'D9',
    what: 'the same, seen from the peer itself',
    on: 'b',
    inject: lab => rules(lab, 'b', 'inet', input, 'udp dport 8285 drop'),
    doctor: ['udp-in-dropped', /firewall of this host.*nft insert rule inet fault c udp dport 8285 accept/],
  },
  {
    id: 'D10',
    what: 'UDP port blocked out at the peer',
    on: 'a',
    status: silentB,
    peers: /silent/,
    inject: lab => underTraffic(lab, 'b', () => rules(lab, 'b', 'inet', output, 'udp dport 8285 drop')),
    doctor: ['peer-silent', /8285/],
  },
  {
    id: 'D10',
    what: 'the same, seen from the peer itself',
    on: 'b',
    inject: lab => rules(lab, 'b', 'inet', output, 'udp dport 8285 drop'),
    doctor: ['udp-out-dropped', /firewall of this host.*accept/],
  },
  {
    id: 'D11',
    what: 'one way: what a sends to b is lost on the way',
    on: 'a',
    status: silentB,
    peers: /silent/,
    inject: lab =>
      underTraffic(lab, 'b', () => rules(lab, 'u', 'bridge', forward, 'iifname "pa" oifname "pb" udp dport 8285 drop')),
    doctor: ['peer-silent', /8285/],
  },
  {
    id: 'D12',
    what: "blocked by this host's firewall",
    on: 'a',
    inject: lab => rules(lab, 'a', 'inet', input, 'udp dport 8285 drop'),
    doctor: ['udp-in-dropped', /its rule 'udp dport 8285 drop' drops.*firewall of this host.*nft insert rule/],
  },
  {
    id: 'D13',
    what: 'blocked underneath, both ways',
    on: 'a',
    status: silentB,
    peers: /silent/,
    inject: lab =>
      underTraffic(lab, 'b', () =>
        rules(lab, 'u', 'bridge', forward, 'oifname { "pa", "pb" } iifname { "pa", "pb" } udp dport 8285 drop'),
      ),
    doctor: ['peer-silent', /8285/],
  },
  {
    id: 'D15',
    what: 'tunnel on the wrong network card',
    on: 'a',
    async inject(lab) {
      const remove = await secondCard(lab);
      await restart(lab, 'a', { iface: 'eth1' });
      return async () => {
        await restart(lab, 'a', {});
        await remove();
      };
    },
    doctor: [
      'wrong-interface',
      /leaves from 198\.51\.100\.1 on eth1.*leaves by eth0.*wrong network card.*--iface eth0/,
    ],
    isQuick: true,
  },
  {
    id: 'D16',
    what: 'two hosts with one address (seen on the second)',
    on: 'c',
    async inject(lab) {
      const c = lab.node('c');
      await c.stopDaemon();
      c.startDaemon({ iface: 'eth0', 'public-ip': lab.node('a').address });
      await c.daemon.end();
      return () => c.bringUp();
    },
    doctor: ['daemon-away', /another live host has our public address.*--public-ip/],
  },
  {
    id: 'D17',
    what: 'peer powered off',
    on: 'a',
    status: silentB,
    peers: /silent/,
    inject: lab =>
      underTraffic(lab, 'b', async () => {
        await onSwitch(lab, ['link', 'set', 'pb', 'down']);
        // What the neighbour table remembers is forgotten in minutes else.
        await attempt(['ip', '-n', lab.spaces.name('a'), 'neigh', 'flush', 'dev', 'eth0']);
        return () => onSwitch(lab, ['link', 'set', 'pb', 'up']);
      }),
    doctor: ['peer-silent', /ARP/],
    isQuick: true,
  },
  {
    id: 'D18',
    what: "the peer's daemon dead, its traffic alive (seen there)",
    on: 'c',
    async inject(lab) {
      await lab.node('c').stopDaemon('SIGKILL');
      return () => lab.node('c').bringUp();
    },
    doctor: ['daemon-away', /no tartand runs here.*systemctl restart tartand/],
  },
  {
    id: 'D19',
    what: "the peer's data process dead too",
    on: 'a',
    status: /192\.0\.2\.3/,
    peers: /silent/,
    inject: lab =>
      underTraffic(lab, 'c', async () => {
        const c = lab.node('c');
        const pid = await c.datapathPid();
        await c.stopDaemon('SIGKILL');
        process.kill(pid, 'SIGKILL');
        return () => c.bringUp();
      }),
    doctor: ['peer-silent', /refuses|no tartan data process/],
  },
  {
    id: 'D30',
    what: 'rp_filter strict, and the way to a peer by another link',
    on: 'a',
    async inject(lab) {
      const remove = await secondCard(lab);
      const a = lab.node('a');
      await a.run('sysctl', '-qw', 'net.ipv4.conf.all.rp_filter=1');
      await a.run('ip', 'route', 'add', '192.0.2.2/32', 'via', '198.51.100.9', 'dev', 'eth1', 'onlink');
      return async () => {
        await a.run('ip', 'route', 'del', '192.0.2.2/32');
        await a.run('sysctl', '-qw', 'net.ipv4.conf.all.rp_filter=0');
        await remove();
      };
    },
    doctor: ['rp-filter-drops', /rp_filter is strict.*eth1.*rp_filter=2/],
  },
  {
    id: 'D31',
    what: 'a foreign route to the network',
    on: 'a',
    status: /route_conflict/,
    async inject(lab) {
      const [a, b] = [lab.node('a'), lab.node('b')];
      await a.run('ip', 'route', 'add', b.subnet, 'via', '192.0.2.253');
      return () => a.run('ip', 'route', 'del', b.subnet);
    },
    doctor: ['route-conflict', /10\.5\..*not ours.*route.*another program.*ip -4 route/],
  },
];

/** The path MTU is asked for four times a minute, so these take their time. */
export const slowRows: readonly DiagnosisRow[] = [
  {
    id: 'D20',
    what: 'path carries less than the tunnel, with ICMP',
    on: 'a',
    status: /MTU|bytes/,
    trafficTo: 'b',
    inject: narrow,
    statusLimitMs: 40_000,
    doctor: ['path-mtu', /carries packets of \d+ bytes.*smaller MTU.*set the MTU/],
  },
  {
    id: 'D21',
    what: 'the same without ICMP',
    on: 'a',
    status: /the path to 192\.0\.2\.3 carries packets of 1272 bytes/,
    trafficTo: 'c',
    inject: lab => rules(lab, 'u', 'bridge', forward, 'oifname "pc" ether type ip ip length > 1300 drop'),
    statusLimitMs: 40_000,
    doctor: ['path-mtu', /carries packets of 1272 bytes.*smaller MTU.*set the MTU/],
  },
  {
    id: 'D23',
    what: 'address translated on the way',
    on: 'a',
    status: /from 198\.18\.9\.9, which no lease names, dropped: perhaps of 192\.0\.2\.2/,
    // No connection is tracked, so the kernel does not translate the answers back.
    inject: lab =>
      underTraffic(lab, 'b', () =>
        rules(
          lab,
          'a',
          'ip',
          'type filter hook prerouting priority -300;',
          'ip saddr 192.0.2.2 udp dport 8285 notrack ip saddr set 198.18.9.9',
        ),
      ),
    // It is told for a minute.
    left: ['stranger'],
    doctor: ['stranger', /198\.18\.9\.9.*perhaps of 192\.0\.2\.2.*translated.*--public-ip/],
  },
];
