/** nftables of others that drop what our tables accept, in a namespace with the real programs. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { engineStart } from '../support/docker-rules.js';
import { planOf } from '../support/firewall-texts.js';
import { HostLab, type RemoteHost } from '../support/host-lab.js';

let lab: HostLab;
let host: RemoteHost;

beforeAll(async () => {
  lab = await HostLab.open();
  host = await lab.host();
});
afterAll(() => lab.close());
afterEach(() => {
  lab.run('nft flush ruleset');
});

const chain = (policy: string, ...rules: readonly string[]): string =>
  `chain forward { type filter hook forward priority 10; policy ${policy}; ${rules.join('; ')}; }`;
const inet = (...chains: readonly string[]): string => `table inet wall { ${chains.join(' ')} }`;

async function conflictsWith(ruleset: string): Promise<readonly string[]> {
  // nft wants a line for what follows a block.
  lab.run('nft -f -', `${ruleset.replace(/; \}/g, ';\n}\n')}\n`);
  return (await host.apply('default', planOf('nft'))).conflicts;
}

const established = 'ct state established,related accept';
/** As firewalld 1.3 makes it, with one zone that lets nothing through, or with the tunnel in one that does. */
const firewalld = (target: string): string => `table inet firewalld {
  chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    ip6 daddr { ::/96, ::ffff:0.0.0.0/96 } reject with icmpv6 addr-unreachable
    jump filter_FORWARD_POLICIES
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD_POLICIES {
    iifname "tartan0" goto ${target}
    oifname "tartan0" goto ${target}
    iifname "eth0" goto filter_FWD_public
  }
  chain filter_FWD_public { jump filter_FWD_public_allow; reject with icmpx admin-prohibited; }
  chain filter_FWD_public_allow { tcp dport 22 accept; }
  chain filter_FWD_trusted { accept; }
}`;

test.each([
  [
    'a reject at the end',
    inet(chain('accept', established, 'reject with icmpx admin-prohibited')),
    'reject with icmpx',
  ],
  ['a policy', inet(chain('drop', established, 'iifname "eth0" accept')), 'its policy drop'],
  ['a drop behind a jump', inet('chain inner { meta l4proto tcp drop; }', chain('accept', 'jump inner')), 'wall inner'],
  [
    'a goto from a map',
    inet('chain inner { drop; }', chain('accept', 'iifname vmap { "tartan0" : goto inner }')),
    'inner',
  ],
  ['a drop by address', inet(chain('accept', 'ip saddr 10.0.0.0/8 ip daddr 10.5.0.0/16 drop')), 'ip saddr 10.0.0.0/8'],
  ['a drop of what comes from elsewhere', inet(chain('accept', 'iifname != { "lo", "eth0" } drop')), 'iifname != '],
  ['a table of family ip', `table ip wall { ${chain('drop', established)} }`, 'ip wall forward'],
  ['ports that are open', inet(chain('drop', established, 'tcp dport { 80, 443 } accept')), 'its policy drop'],
  ['firewalld', firewalld('filter_FWD_public'), 'firewall-cmd --permanent --zone=trusted --add-interface=tartan0'],
])('fault C11: %s is named with table, chain and rule', async (_, ruleset, text) => {
  const conflicts = await conflictsWith(ruleset);
  expect(conflicts.length).toBeGreaterThan(0);
  expect(conflicts.join('\n')).toMatch(/^rule_conflict (inet|ip) \w+ \w+: its (rule '.*'|policy drop) drops packets/m);
  expect(conflicts.join('\n')).toContain(text);
});

test.each([
  [
    'an accept for the tunnel',
    inet(chain('drop', established, 'iifname "tartan0" accept', 'oifname "tartan0" accept')),
  ],
  ['an accept by a pattern', inet(chain('drop', 'iifname "tart*" accept', 'oifname "tart*" accept'))],
  ['an accept for the range', inet(chain('drop', 'ip saddr 10.5.0.0/16 ip daddr 10.5.0.0/16 accept'))],
  ['an accept for bridges', inet(chain('drop', 'iifname "docker0" accept', 'oifname "docker0" accept'))],
  [
    'an accept by a set',
    inet('set s { type ipv4_addr; flags interval; elements = { 10.5.0.0/16 }; }', chain('drop', 'ip saddr @s accept')),
  ],
  [
    'a drop of others',
    inet(chain('accept', 'ip saddr 198.51.100.0/24 drop', 'iifname "eth0" drop', 'ct state invalid drop')),
  ],
  ['a limit', inet(chain('accept', 'limit rate over 1000/second drop', 'udp dport 53 drop', 'meta nfproto ipv6 drop'))],
  ['an input chain', inet('chain input { type filter hook input priority 0; policy drop; }')],
  ['firewalld with the tunnel in a trusted zone', firewalld('filter_FWD_trusted')],
  ['a table of IPv6', 'table ip6 wall { chain forward { type filter hook forward priority 0; policy drop; } }'],
  [
    'Docker 29',
    'table ip docker-bridges { chain filter-forward { type filter hook forward priority 0; policy accept; oifname "docker0" drop; } }',
  ],
])('fault C11: %s is no alarm', async (_, ruleset) => {
  expect(await conflictsWith(ruleset)).toEqual([]);
});

test.each([20, 28] as const)('fault C11: the rules of Docker %i are no alarm', async engine => {
  lab.run('iptables-nft-restore --noflush', engineStart(engine, true, false));
  expect((await host.apply('default', planOf('nft'))).conflicts).toEqual([]);
});
