/** Packet filter rules as text: what iptables-save says on hosts with and without Docker, and what we would do. */
import { describe, expect, test } from 'vitest';
import { canonicalRule, splitWords } from '../../src/host/firewall/save-text.js';
import { parsePrefix } from '../../src/model/ip.js';
import { docker20, docker28, firewallCase, kernelRules, plan, restored, second } from '../support/firewall-texts.js';

const ours = '-m comment --comment tartan';

describe('a host without Docker', () => {
  const all = `*raw
-N TARTAN-MADE
-N TARTAN-MADE-PREROUTING
-I PREROUTING -s 10.5.0.0/16 -d 10.5.1.0/24 -i tartan0 ${ours} -j ACCEPT
COMMIT
*filter
-N TARTAN-MADE
-N TARTAN-MADE-FORWARD
-N DOCKER-USER
-I DOCKER-USER -s 10.5.0.0/16 -d 10.5.0.0/16 -o tartan0 ${ours} -j ACCEPT
-I DOCKER-USER -s 10.5.0.0/16 -d 10.5.0.0/16 -i tartan0 ${ours} -j ACCEPT
-I FORWARD ${ours} -j DOCKER-USER
COMMIT
*nat
-N TARTAN-MADE
-N TARTAN-MADE-POSTROUTING
-N TARTAN-POSTRTG
-I TARTAN-POSTRTG ! -s 10.5.0.0/16 -d 10.5.0.0/16 -o tartan0 ${ours} -j MASQUERADE --random-fully
-I TARTAN-POSTRTG -s 10.5.1.0/24 ! -d 10.5.0.0/16 ${ours} -j MASQUERADE --random-fully
-I TARTAN-POSTRTG -s 10.5.1.0/24 -d 224.0.0.0/4 ${ours} -j RETURN
-I TARTAN-POSTRTG -s 10.5.0.0/16 -d 10.5.0.0/16 -o tartan0 ${ours} -j ACCEPT
-I POSTROUTING ${ours} -j TARTAN-POSTRTG
COMMIT
`;

  test('gets everything, once', () => {
    expect(firewallCase('')).toBe(all);
    expect(firewallCase(restored('', all))).toBe('');
  });

  test('cleanup removes exactly that', () => {
    const made = restored('', all);
    expect(firewallCase(made, 'nothing')).toBe(`*raw
-D PREROUTING -s 10.5.0.0/16 -d 10.5.1.0/24 -i tartan0 ${ours} -j ACCEPT
COMMIT
*filter
-D FORWARD ${ours} -j DOCKER-USER
-D DOCKER-USER -s 10.5.0.0/16 -d 10.5.0.0/16 -i tartan0 ${ours} -j ACCEPT
-D DOCKER-USER -s 10.5.0.0/16 -d 10.5.0.0/16 -o tartan0 ${ours} -j ACCEPT
-X DOCKER-USER
COMMIT
*nat
-D POSTROUTING ${ours} -j TARTAN-POSTRTG
-D TARTAN-POSTRTG -s 10.5.0.0/16 -d 10.5.0.0/16 -o tartan0 ${ours} -j ACCEPT
-D TARTAN-POSTRTG -s 10.5.1.0/24 -d 224.0.0.0/4 ${ours} -j RETURN
-D TARTAN-POSTRTG -s 10.5.1.0/24 ! -d 10.5.0.0/16 ${ours} -j MASQUERADE --random-fully
-D TARTAN-POSTRTG ! -s 10.5.0.0/16 -d 10.5.0.0/16 -o tartan0 ${ours} -j MASQUERADE --random-fully
-X TARTAN-POSTRTG
COMMIT
`);
    expect(firewallCase(restored(made, firewallCase(made, 'nothing')), 'nothing')).toBe('');
    expect(firewallCase('', 'nothing')).toBe('');
  });

  test('switches', () => {
    expect(firewallCase('', { ...plan, forward: false, masquerade: 'off' })).toBe('');
    // An administrator's Docker may masquerade: the overlay keeps its sources all the same.
    const kept = firewallCase('', { ...plan, masquerade: 'off' });
    expect(kept).toMatch(/-I TARTAN-POSTRTG -s 10\.5\.0\.0\/16 -d 10\.5\.0\.0\/16 -o tartan0 .* -j ACCEPT/);
    expect(kept).not.toContain('MASQUERADE');
    const only = firewallCase('', { ...plan, forward: false, masquerade: 'not-fully-random' });
    expect(only).toMatch(/^\*nat\n/);
    expect(only).not.toContain('--random-fully');
    expect(firewallCase('', plan, false)).not.toContain('--random-fully');
    const made = restored('', firewallCase(''));
    expect(firewallCase(made, { ...plan, masquerade: 'off' })).toMatch(/^-D TARTAN-POSTRTG .*MASQUERADE/m);
    expect(firewallCase(made, { ...plan, forward: false, masquerade: 'off' })).toMatch(/^-D POSTROUTING/m);
  });

  test('the engine kernel: nothing for the host itself from its link, its outer packets are not tracked', () => {
    const made = restored('', firewallCase(''));
    const on = firewallCase(made, { ...plan, kernel: kernelRules });
    expect(on).toBe(`*raw
-N TARTAN-MADE-OUTPUT
-D PREROUTING -s 10.5.0.0/16 -d 10.5.1.0/24 -i tartan0 ${ours} -j ACCEPT
-I PREROUTING -d 192.0.2.1/32 -p udp -m udp --dport 4790 ${ours} -j CT --notrack
-I PREROUTING -i tartan-k ${ours} -j DROP
-I PREROUTING -s 10.5.0.0/16 -d 10.5.1.0/24 -i tartan0 ${ours} -j ACCEPT
-I OUTPUT -s 192.0.2.1/32 -p udp -m udp --dport 4790 ${ours} -j CT --notrack
COMMIT
`);
    const both = restored(made, on);
    expect(firewallCase(both, { ...plan, kernel: kernelRules })).toBe('');
    const off = firewallCase(both);
    expect(off).toMatch(/^-D OUTPUT -s 192\.0\.2\.1\/32 -p udp/m);
    expect(off).not.toMatch(/-I .*(4790|tartan-k)/);
    expect(firewallCase(restored(both, off))).toBe('');
    const alone = firewallCase('', { ...plan, forward: false, masquerade: 'off', kernel: kernelRules });
    expect(alone).toMatch(/^\*raw\n-N TARTAN-MADE\n-N TARTAN-MADE-PREROUTING\n-N TARTAN-MADE-OUTPUT\n/);
    expect(alone).not.toMatch(/filter|nat/);
    const evil = { ...kernelRules, link: 'a -j ACCEPT' };
    expect(() => firewallCase('', { ...plan, kernel: evil })).toThrow(/is not the name of a link/);
  });

  test('another subnet: the old rules go in the same change', () => {
    const made = restored('', firewallCase(''));
    const payload = firewallCase(made, { ...plan, subnet: parsePrefix('10.5.9.0/24') });
    expect(payload).toContain('-D PREROUTING -s 10.5.0.0/16 -d 10.5.1.0/24');
    expect(payload).toContain('-I PREROUTING -s 10.5.0.0/16 -d 10.5.9.0/24');
    expect(payload).not.toContain('*filter');
    expect(firewallCase(restored(made, payload), { ...plan, subnet: parsePrefix('10.5.9.0/24') })).toBe('');
  });

  test('two parts: the same chains, the rules of the first part first', () => {
    const rulesOf = (text: string): string[] => text.split('\n').filter(line => / 10\.[59]\./.test(line));
    const both = firewallCase('', [plan, second]);
    const [first, other] = [rulesOf(all), rulesOf(all.replaceAll('10.5.', '10.9.').replaceAll('tartan0', 'vx7'))];
    // Inserted at the top, the last one first.
    expect(rulesOf(both)).toEqual([
      ...other.slice(0, 1),
      ...first.slice(0, 1),
      ...other.slice(1, 3),
      ...first.slice(1, 3),
      ...other.slice(3),
      ...first.slice(3),
    ]);
    expect(both.replace(/.* 10\.9\..*\n/g, '')).toBe(all);
    const made = restored('', both);
    expect(firewallCase(made, [plan, second])).toBe('');
    expect(restored(made, firewallCase(made, plan))).toBe(restored('', all));
    expect(firewallCase(made, [{ ...plan, forward: false, masquerade: 'off' }, second])).not.toContain('-X');
  });

  test('while a plan is not known yet the rules of the other network stay, in one order', () => {
    const made = restored('', firewallCase('', [plan, second]));
    for (const known of [plan, second]) {
      const first = restored(made, firewallCase(made, known, true, true));
      expect(first.split('\n').sort()).toEqual(made.split('\n').sort());
      expect(firewallCase(first, known, true, true)).toBe('');
      const moved = { ...known, subnet: parsePrefix(known === plan ? '10.5.9.0/24' : '10.9.9.0/24') };
      const both = restored(first, firewallCase(first, moved, true, true));
      expect(both).toMatch(/ -d 10\.[59]\.9\.0\/24[^]* -d 10\.[59]\.1\.0\/24/);
      expect(firewallCase(both, moved, true, true)).toBe('');
    }
    expect(firewallCase(made, 'nothing', true, true)).toBe('');
  });

  test('a device name that is not one word never reaches iptables', () => {
    expect(() => firewallCase('', { ...plan, device: 'x -j DROP' })).toThrow(/not the name of a link/);
  });
});

describe('beside Docker 20.10', () => {
  test('before its RETURN, by its own jump', () => {
    const payload = firewallCase(docker20);
    expect(payload).not.toMatch(/-N DOCKER-USER|FORWARD/);
    const after = restored(docker20, payload);
    expect(after).toMatch(
      /-A DOCKER-USER -s 10\.5\.0\.0\/16 .* -j ACCEPT\n-A DOCKER-USER .* -j ACCEPT\n-A DOCKER-USER -j RETURN/,
    );
    expect(firewallCase(after)).toBe('');
  });

  test('appended after its RETURN they are of no use: moved', () => {
    const late = restored(docker20, firewallCase(docker20)).replace(/-A DOCKER-USER -j RETURN\n/, '');
    const broken = late.replace('-A DOCKER-USER -s', '-A DOCKER-USER -j RETURN\n-A DOCKER-USER -s');
    const payload = firewallCase(broken);
    expect(payload.match(/^-[DI] DOCKER-USER/gm)).toEqual(Array(4).fill(expect.any(String)));
    expect(firewallCase(restored(broken, payload))).toBe('');
  });

  test("an administrator's rule above ours is left above", () => {
    const made = restored(docker20, firewallCase(docker20));
    expect(
      firewallCase(made.replace('-A DOCKER-USER -s', '-A DOCKER-USER -s 10.5.3.3/32 -j DROP\n-A DOCKER-USER -s')),
    ).toBe('');
  });

  test('cleanup leaves every line of Docker', () => {
    const made = restored(docker20, firewallCase(docker20));
    expect(restored(made, firewallCase(made, 'nothing')).replace(/\*raw\n(:.*\n)*COMMIT\n/, '')).toBe(
      restored(docker20, ''),
    );
  });
});

describe('beside Docker 28.5', () => {
  test('raw first, before its masquerade, by its own jump', () => {
    const after = restored(docker28, firewallCase(docker28));
    expect(after).toMatch(
      /-A PREROUTING -s 10\.5\.0\.0\/16 -d 10\.5\.1\.0\/24 -i tartan0 .*\n-A PREROUTING -d 10\.5\.1\.2/,
    );
    expect(after).toMatch(
      /-A POSTROUTING -m comment --comment tartan -j TARTAN-POSTRTG\n-A POSTROUTING -s 10\.5\.1\.0\/24/,
    );
    expect(after).not.toMatch(/-A FORWARD .*tartan/);
    expect(firewallCase(after)).toBe('');
  });

  test('after a restart of Docker its masquerade is above ours: ours move up', () => {
    const made = restored(docker28, firewallCase(docker28));
    const masquerade = '-A POSTROUTING -s 10.5.1.0/24 ! -o docker0 -j MASQUERADE\n';
    const restarted = made.replace(masquerade, '').replace('-A POSTROUTING', `${masquerade}-A POSTROUTING`);
    expect(firewallCase(restarted)).toBe(
      `*nat\n-D POSTROUTING ${ours} -j TARTAN-POSTRTG\n-I POSTROUTING ${ours} -j TARTAN-POSTRTG\nCOMMIT\n`,
    );
  });

  test("somebody else's masquerade above ours is none of our business", () => {
    const made = restored(docker28, firewallCase(docker28));
    const others = '-A POSTROUTING -o wg0 -j MASQUERADE\n-A POSTROUTING -s 172.17.0.0/16 ! -o docker1 -j MASQUERADE\n';
    expect(firewallCase(made.replace('-A POSTROUTING', `${others}-A POSTROUTING`))).toBe('');
  });

  test('its drops come before the jump to DOCKER-USER: a jump of ours goes on top, and stays when Docker makes its own', () => {
    const wrong = docker28.replace('-A FORWARD -j DOCKER-USER\n', '');
    const after = restored(wrong, firewallCase(wrong));
    expect(after).toMatch(/-A FORWARD -m comment --comment tartan -j DOCKER-USER\n-A FORWARD -j DOCKER-FORWARD/);
    const dockerToo = after.replace('-A FORWARD', '-A FORWARD -j DOCKER-USER\n-A FORWARD');
    expect(firewallCase(dockerToo)).toBe('');
    const cleaned = firewallCase(dockerToo, 'nothing');
    expect(cleaned).toContain(`-D FORWARD ${ours} -j DOCKER-USER`);
    expect(cleaned).not.toContain('-X DOCKER-USER');
  });
});

describe('foreign rules where ours are', () => {
  test('in our chain: left, the chain stays and is named', () => {
    const made = restored('', firewallCase('')).replace(
      '-A TARTAN-POSTRTG',
      '-A TARTAN-POSTRTG -s 203.0.113.0/24 -j RETURN\n-A TARTAN-POSTRTG',
    );
    const cleaned = firewallCase(made, 'nothing');
    expect(cleaned).not.toContain('-X TARTAN-POSTRTG');
    expect(cleaned).toContain('rule_conflict nat TARTAN-POSTRTG');
    expect(restored(made, cleaned)).toContain('-s 203.0.113.0/24 -j RETURN');
  });

  test('in a DOCKER-USER that we made: it stays', () => {
    const made = restored('', firewallCase(''));
    const used = made.replace('-A DOCKER-USER', '-A DOCKER-USER -s 203.0.113.0/24 -j DROP\n-A DOCKER-USER');
    expect(firewallCase(used, 'nothing')).not.toContain('-X DOCKER-USER');
  });

  test('a comment that only contains ours is not ours', () => {
    const alike = '*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m comment --comment "not tartan" -j DROP\nCOMMIT\n';
    expect(firewallCase(alike, 'nothing')).toBe('');
  });
});

describe('reading iptables-save', () => {
  test('words, quotes and backslashes', () => {
    expect(splitWords('-m comment --comment "a \\"b\\" c" -j LOG')).toEqual([
      '-m',
      'comment',
      '--comment',
      'a "b" c',
      '-j',
      'LOG',
    ]);
  });

  test('order of options and modules make no difference, a negation does', () => {
    const canonical = (text: string): string => canonicalRule(splitWords(text));
    expect(canonical('-i a -s b -m comment --comment tartan -j ACCEPT')).toBe(
      canonical('-s b -i a --comment "tartan" -j ACCEPT'),
    );
    expect(canonical('! -s b -j ACCEPT')).not.toBe(canonical('-s b -j ACCEPT'));
  });
});
