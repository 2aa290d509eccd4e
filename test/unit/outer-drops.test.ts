/** Which rules of this host surely drop packets of the tunnel, and that a rule which may not is never told. */
import { describe, expect, test } from 'vitest';
import { readOuterDrops, type OuterDrop, type OuterTunnel } from '../../src/host/firewall/outer-drops.js';
import { parseIpv4, parsePrefix } from '../../src/model/ip.js';
import { docker20, docker28 } from '../support/firewall-texts.js';

const tunnel = {
  device: 'eth0',
  address: parseIpv4('192.0.2.1'),
  port: 8285,
  peers: [parseIpv4('192.0.2.2'), parseIpv4('192.0.2.3')],
};

function save(rules: string, policy = 'ACCEPT'): string {
  return `*filter\n:INPUT ${policy} [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n:ours - [0:0]\n${rules}\nCOMMIT\n`;
}

/** @param table what `nft -j list table inet t` writes */
async function drops(
  saved: string | undefined,
  table?: object,
  overlay?: OuterTunnel['overlay'],
  change: Partial<OuterTunnel> = {},
): Promise<readonly OuterDrop[]> {
  const read = await readOuterDrops(
    { ...tunnel, overlay, ...change },
    async (file, args) => {
      const absent = Object.assign(new Error(file), { code: 'ENOENT' });
      if (file === 'iptables-save' && saved !== undefined) return saved;
      if (file !== 'nft' || table === undefined) throw absent;
      if (args[1] === 'tables') return 'table inet t\n';
      return args[0] === '-j' ? JSON.stringify(table) : '\tudp dport 8285 drop # handle 4\n';
    },
    new AbortController().signal,
  );
  if (!read.known) throw new Error(read.why);
  return read.value;
}

/** Names what is dropped, for whom where it is not everybody. */
async function kinds(saved: string | undefined, table?: object): Promise<readonly string[]> {
  return (await drops(saved, table)).map(({ what, peers }) => `${what}${peers.length < 2 ? ' of one' : ''}`);
}

describe('iptables', () => {
  test.each([
    ['nothing', '', []],
    ['the port', '-A INPUT -p udp -m udp --dport 8285 -j DROP', ['in']],
    [
      'the port by a list',
      '-A INPUT -p udp -m multiport --dports 53,8000:9000 -j REJECT --reject-with icmp-port-unreachable',
      ['in'],
    ],
    ['another port', '-A INPUT -p udp -m udp --dport 8286 -j DROP', []],
    ['another link', '-A INPUT -i eth1 -p udp -j DROP', []],
    ['this link by a wildcard', '-A INPUT -i eth+ -p udp -j DROP', ['in']],
    ['one peer', '-A INPUT -s 192.0.2.3/32 -p udp -j DROP', ['in of one']],
    ['all but one peer', '-A INPUT ! -s 192.0.2.3/32 -p udp -j DROP', ['in of one']],
    ['in a chain', '-A INPUT -j ours\n-A ours -p udp -j DROP', ['in']],
    ['after a return of that chain', '-A INPUT -j ours\n-A ours -j RETURN\n-A ours -p udp -j DROP', []],
    ['after an accept', '-A INPUT -p udp --dport 8285 -j ACCEPT\n-A INPUT -p udp -j DROP', []],
    ['by a match that nobody here knows', '-A INPUT -p udp -m string --string x --algo bm -j DROP', []],
    [
      'after an accept that may match',
      '-A INPUT -m set --match-set friends src -j ACCEPT\n-A INPUT -p udp -j DROP',
      [],
    ],
    ['what is new', '-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -p udp -j DROP', ['new']],
    ['what goes out', '-A OUTPUT -o eth0 -p udp -m udp --sport 8285 -j DROP', ['out']],
    ['ICMP', '-A INPUT -p icmp -j DROP', ['icmp']],
    ['ICMP but what is related', '-A INPUT -m state --state RELATED -j ACCEPT\n-A INPUT -p icmp -j DROP', []],
    ['pings', '-A INPUT -p icmp -m icmp --icmp-type 8 -j DROP', []],
    ['path MTUs', '-A INPUT -p icmp -m icmp --icmp-type 3/4 -j DROP', ['icmp']],
  ])('drops %s', async (_, rules, wanted) => {
    expect([...new Set(await kinds(save(rules)))]).toEqual(wanted);
  });

  test('a policy drops what no rule accepts', async () => {
    const [drop, ...more] = await drops(save('-A INPUT -i lo -j ACCEPT', 'DROP'));
    expect(drop).toMatchObject({ what: 'in', rule: 'iptables filter INPUT: its policy drops' });
    expect(drop?.repair).toBe('iptables -t filter -I INPUT -p udp --dport 8285 -j ACCEPT');
    expect(more.map(({ what }) => what)).toEqual(['icmp']);
  });

  test.each([docker20, docker28])('rules of Docker drop nothing of the tunnel', async saved => {
    expect(await drops(saved)).toEqual([]);
  });
});

describe('the engine kernel: from any port, and not tracked', () => {
  const kernel = { port: 4790, isKernel: true };
  const found = async (rules: string, policy?: string): Promise<readonly string[]> =>
    (await drops(save(rules, policy), undefined, undefined, kernel)).map(({ what, repair }) => `${what}: ${repair}`);
  const accept = (chain: string): string => `iptables -t filter -I ${chain} -p udp --dport 4790 -j ACCEPT`;

  test.each([
    ['nothing', '', 'ACCEPT', []],
    ['all but the other port', '-A INPUT -p udp -m udp --dport 8285 -j ACCEPT', 'DROP', [`in: ${accept('INPUT')}`]],
    ['all but what is accepted', '-A INPUT -p udp -m udp --dport 4790 -j ACCEPT', 'DROP', []],
    [
      'what is not established: nobody tracks it',
      '-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -p udp -j DROP',
      'ACCEPT',
      [`in: ${accept('INPUT')}`],
    ],
    ['what is new, which is another state', '-A INPUT -m conntrack --ctstate NEW -j DROP', 'ACCEPT', []],
    ['but what is untracked', '-A INPUT -m conntrack --ctstate UNTRACKED -j ACCEPT\n-A INPUT -j DROP', 'ACCEPT', []],
    ['what goes out', '-A OUTPUT -o eth0 -p udp --dport 4790 -j DROP', 'ACCEPT', [`out: ${accept('OUTPUT')}`]],
    ['a source port, which may be any', '-A OUTPUT -p udp --sport 4790 -j DROP', 'ACCEPT', []],
    ['ICMP', '-A INPUT -p icmp -j DROP', 'ACCEPT', []],
  ])('drops %s', async (_, rules, policy, wanted) => {
    expect(await found(rules, policy)).toEqual(wanted);
  });
});

describe('what the tunnel carries, by iptables', () => {
  const overlay = { link: 'tartan0', network: parsePrefix('10.5.0.0/16'), subnet: parsePrefix('10.5.1.0/24') };
  const ours = '-A FORWARD -d 10.5.0.0/16 -o tartan0 -j ACCEPT\n-A FORWARD -s 10.5.0.0/16 -i tartan0 -j ACCEPT';
  const forward = async (rules: string): Promise<readonly string[]> =>
    (await drops(save(rules), undefined, overlay)).map(({ what, rule }) => `${what} ${rule}`);

  test('a rule before ours drops, one behind them does not', async () => {
    expect(await forward(ours)).toEqual([]);
    expect(await forward(`${ours}\n-A FORWARD -j DROP`)).toEqual([]);
    const [drop, ...more] = await forward(`-A FORWARD -i tartan0 -j REJECT\n${ours}`);
    expect([drop, more]).toEqual(["forward iptables filter FORWARD: its rule '-i tartan0 -j REJECT' drops", []]);
    expect(await forward(`-A FORWARD -p tcp --dport 80 -j DROP\n${ours}`)).toEqual([]);
  });

  test('without rules of ours the policy drops, and the repair names the link', async () => {
    const [drop] = await drops(save(''), undefined, overlay);
    expect(drop).toMatchObject({ what: 'forward', repair: 'iptables -t filter -I FORWARD -i tartan0 -j ACCEPT' });
  });
});

describe('nftables', () => {
  const chain = (name: string, hook: string, policy = 'accept') => ({
    chain: { family: 'inet', table: 't', name, handle: 1, type: 'filter', hook, prio: 0, policy },
  });
  const rule = (name: string, ...expr: object[]) => ({
    rule: { family: 'inet', table: 't', chain: name, handle: 4, expr },
  });
  const match = (left: object, right: unknown) => ({ match: { op: '==', left, right } });
  const dport = { payload: { protocol: 'udp', field: 'dport' } };
  const state = { ct: { key: 'state' } };
  const table = (...items: object[]) => ({ nftables: items });

  test('the port is dropped, and the rule is named as nft shows it', async () => {
    const [drop] = await drops(
      undefined,
      table(chain('input', 'input'), rule('input', match(dport, 8285), { drop: null })),
    );
    expect(drop).toMatchObject({
      what: 'in',
      rule: "nft inet t input: its rule 'udp dport 8285 drop' drops",
      repair: 'nft insert rule inet t input udp dport 8285 accept',
    });
    expect(drop?.peers).toHaveLength(2);
  });

  test.each([
    ['a set of other ports', rule('input', match(dport, { set: [53, { range: [67, 68] }] }), { drop: null }), []],
    [
      'a range with the port',
      rule('input', match(dport, { set: [53, { range: [8000, 9000] }] }), { drop: null }),
      ['in'],
    ],
    ['TCP', rule('input', match({ meta: { key: 'l4proto' } }, 'tcp'), { drop: null }), []],
    ['what is established', rule('input', match(state, ['established', 'related']), { drop: null }), ['in', 'icmp']],
    ['what is new', rule('input', match(state, 'new'), match(dport, 8285), { drop: null }), ['new']],
    [
      'a named set of sources',
      rule('input', match({ payload: { protocol: 'ip', field: 'saddr' } }, '@bad'), { drop: null }),
      [],
    ],
    [
      'ICMP errors',
      rule('input', match({ payload: { protocol: 'icmp', field: 'type' } }, 'destination-unreachable'), { drop: null }),
      ['icmp'],
    ],
    ['what another link brings', rule('input', match({ meta: { key: 'iifname' } }, 'eth1'), { drop: null }), []],
    [
      'what this link brings',
      rule('input', match({ meta: { key: 'iifname' } }, 'eth*'), match(dport, 8285), { drop: null }),
      ['in'],
    ],
  ])('drops %s', async (_, item, wanted) => {
    expect([...new Set(await kinds(undefined, table(chain('input', 'input'), item)))]).toEqual(wanted);
  });

  test('hooks that the packet does not pass say nothing, those on its way do', async () => {
    const drop = { drop: null };
    expect(await kinds(undefined, table(chain('f', 'forward', 'drop'), rule('f', drop)))).toEqual([]);
    expect(await kinds(undefined, table(chain('o', 'output'), rule('o', match(dport, 8285), drop)))).toEqual(['out']);
    expect(await kinds(undefined, table(chain('p', 'prerouting', 'drop')))).toEqual(['in', 'icmp']);
  });
});

test('without a program that lists rules nothing is said to be well', async () => {
  const absent = async (file: string): Promise<never> => {
    throw Object.assign(new Error(file), { code: 'ENOENT' });
  };
  expect(await readOuterDrops({ ...tunnel, overlay: undefined }, absent, new AbortController().signal)).toMatchObject({
    known: false,
  });
});
