/** Which rules go where, and our nftables table as text; then the programs that are run for it. */
import { describe, expect, test } from 'vitest';
import { runCommand, type RunCommand } from '../../src/host/firewall/command.js';
import { Firewall } from '../../src/host/firewall/firewall.js';
import { diffTable, parseListing } from '../../src/host/firewall/nft-table.js';
import { placeFirewall } from '../../src/host/firewall/placement.js';
import { foreignTables, otherVariant, sameRules } from '../../src/host/firewall/listing.js';
import { readSaveText } from '../../src/host/firewall/save-text.js';
import { runSteps } from '../../src/host/step.js';
import { silentLog } from '../../src/lib/log.js';
import { parsePrefix } from '../../src/model/ip.js';
import type { FirewallPlan } from '../../src/model/plan.js';
import { docker20, docker28, firewallCase, kernelRules, plan, restored, second } from '../support/firewall-texts.js';

const nftAll = `add table ip tartan
add chain ip tartan postrouting { type nat hook postrouting priority 90; policy accept; }
insert rule ip tartan postrouting ip saddr != 10.5.0.0/16 ip daddr 10.5.0.0/16 oifname "tartan0" masquerade fully-random comment "tartan"
insert rule ip tartan postrouting ip saddr 10.5.1.0/24 ip daddr != 10.5.0.0/16 masquerade fully-random comment "tartan"
insert rule ip tartan postrouting ip saddr 10.5.1.0/24 ip daddr 224.0.0.0/4 return comment "tartan"
insert rule ip tartan postrouting ip saddr 10.5.0.0/16 ip daddr 10.5.0.0/16 oifname "tartan0" snat to ip saddr comment "tartan"
add chain ip tartan forward { type filter hook forward priority -10; policy accept; }
insert rule ip tartan forward ip saddr 10.5.0.0/16 ip daddr 10.5.0.0/16 oifname "tartan0" meta mark set meta mark | 0x01000000 accept comment "tartan"
insert rule ip tartan forward ip saddr 10.5.0.0/16 ip daddr 10.5.0.0/16 iifname "tartan0" meta mark set meta mark | 0x01000000 accept comment "tartan"`;

/** As nft 1.0.6 lists what the above made. */
const nftListed = `table ip tartan { # handle 1
	chain postrouting { # handle 1
		type nat hook postrouting priority 90; policy accept;
		ip saddr 10.5.0.0/16 ip daddr 10.5.0.0/16 oifname "tartan0" snat to ip saddr comment "tartan" # handle 6
		ip saddr 10.5.1.0/24 ip daddr 224.0.0.0/4 return comment "tartan" # handle 5
		ip saddr 10.5.1.0/24 ip daddr != 10.5.0.0/16 masquerade fully-random comment "tartan" # handle 4
		ip saddr != 10.5.0.0/16 ip daddr 10.5.0.0/16 oifname "tartan0" masquerade fully-random comment "tartan" # handle 3
	}

	chain forward { # handle 2
		type filter hook forward priority -10; policy accept;
		ip saddr 10.5.0.0/16 ip daddr 10.5.0.0/16 iifname "tartan0" meta mark set meta mark | 0x01000000 accept comment "tartan" # handle 8
		ip saddr 10.5.0.0/16 ip daddr 10.5.0.0/16 oifname "tartan0" meta mark set meta mark | 0x01000000 accept comment "tartan" # handle 7
	}
}
`;

/** No iptables, and an nft that lists the above for whatever it is told, in its own spelling. */
function fakeNft(spell: (text: string) => string): { run: RunCommand; payloads: string[]; listed: string } {
  const fake = { run, payloads: [] as string[], listed: '' };
  async function run(file: string, args: readonly string[], input: string): Promise<string> {
    if (file !== 'nft') throw Object.assign(new Error('ENOENT'), { code: 'ENOENT' });
    if (args[0] === '-f') {
      fake.payloads.push(input);
      fake.listed = spell(nftListed);
    }
    if (args[1] === 'tables') return fake.listed === '' ? '' : 'table ip tartan\n';
    return fake.listed;
  }
  return fake;
}

describe('our nftables table', () => {
  const nftCase = (listed: string | undefined, ...want: readonly FirewallPlan[]): string => {
    const { commands, conflicts } = diffTable(
      want.length === 0 ? [plan] : want,
      listed === undefined ? undefined : parseListing(listed),
    );
    return [...commands, ...conflicts].join('\n');
  };
  const nothing = (listed: string | undefined): string => {
    const { commands, conflicts } = diffTable([], listed === undefined ? undefined : parseListing(listed));
    return [...commands, ...conflicts].join('\n');
  };

  test('gets everything, once, and goes wholly', () => {
    expect(nftCase(undefined)).toBe(nftAll);
    expect(nftCase(nftListed)).toBe('');
    expect(nothing(nftListed)).toBe('delete table ip tartan');
    expect(nothing('table ip tartan { # handle 1\n}\n')).toBe('delete table ip tartan');
    expect(nothing(undefined)).toBe('');
  });

  test('switches', () => {
    expect(nftCase(undefined, { ...plan, masquerade: 'off' })).toContain('snat to ip saddr');
    expect(nftCase(undefined, { ...plan, masquerade: 'off' })).not.toContain('masquerade');
    expect(nftCase(undefined, { ...plan, masquerade: 'off', forward: false })).toBe('');
    expect(nftCase(undefined, { ...plan, masquerade: 'not-fully-random' })).not.toContain('fully-random');
    const only = nftCase(nftListed, { ...plan, masquerade: 'off' });
    expect(only).toContain('delete rule ip tartan postrouting handle 6');
    expect(only).not.toContain('masquerade');
    expect(nftCase(nftListed, { ...plan, masquerade: 'off', forward: false })).toBe('delete table ip tartan');
  });

  test('the engine kernel: two chains more, before connections are tracked', () => {
    const kernel = { ...plan, kernel: kernelRules };
    expect(nftCase(undefined, kernel)).toBe(`${nftAll}
add chain ip tartan prerouting { type filter hook prerouting priority -300; policy accept; }
insert rule ip tartan prerouting ip daddr 192.0.2.1 udp dport 4790 notrack comment "tartan"
insert rule ip tartan prerouting iifname "tartan-k" drop comment "tartan"
add chain ip tartan output { type filter hook output priority -300; policy accept; }
insert rule ip tartan output ip saddr 192.0.2.1 udp dport 4790 notrack comment "tartan"`);
    // With Docker on nftables ours stand in both; these rules are final in one.
    const view = { iptables: readSaveText(docker28), nft: ['docker-bridges'] };
    const { iptables, nftables } = placeFirewall([kernel], view);
    expect([iptables, nftables].map(parts => parts.map(part => part.kernel !== undefined))).toEqual([[true], [false]]);
    const asked = placeFirewall([{ ...kernel, nftables: true }], view);
    expect(asked.iptables.concat(asked.nftables).map(part => part.kernel !== undefined)).toEqual([false, true]);
  });

  test('a rule that is gone, moved or changed: ours are made anew in one transaction', () => {
    const lines = nftListed.split('\n');
    const swapped = [...lines.slice(0, 3), lines[4], lines[3], ...lines.slice(5)].join('\n');
    const broken = [
      nftListed.replace(/.*handle 6\n/, ''),
      swapped,
      nftListed.replace('10.5.1.0/24 ip daddr !=', '10.5.9.0/24 ip daddr !='),
      nftListed.replace('priority 90; policy accept', 'priority 90; policy drop'),
    ];
    for (const text of broken) {
      const commands = nftCase(text).split('\n');
      expect(commands.slice(-8)).toEqual(nftAll.split('\n').slice(1));
      expect(commands.filter(one => one.startsWith('delete rule')).length).toBe(commands.length - 8);
    }
  });

  const shared = nftListed
    .replace(
      'comment "tartan" # handle 6',
      '$&\n\t\tip saddr { 203.0.113.1,\n\t\t\t     203.0.113.2 } drop # handle 20',
    )
    .replace(/}\n$/, '\tset mine { # handle 9\n\t\ttype ipv4_addr\n\t}\n}\n');

  test('what others put into it stays', () => {
    expect(nftCase(shared)).toBe('');
    const changed = nftCase(shared, { ...plan, subnet: parsePrefix('10.5.9.0/24') });
    expect(changed).not.toContain('handle 20');
    expect(changed).not.toMatch(/delete (chain|table)/);
    const cleaned = nothing(shared);
    expect(cleaned).toContain('delete chain ip tartan forward\n');
    expect(cleaned).not.toMatch(/delete (chain ip tartan postrouting|table)/);
    expect(cleaned).toContain('rule_conflict ip tartan: what is not ours is in this table (postrouting), it stays');
    const rest = shared.replace(/.*comment "tartan".*\n/g, '').replace(/\tchain forward[^}]*}\n/, '');
    expect(nothing(rest)).toBe('rule_conflict ip tartan: what is not ours is in this table (postrouting), it stays');
  });

  test('two parts: the same chains, the rules of the first part first, and either goes alone', () => {
    const both = nftCase(undefined, plan, second);
    const secondRules = nftAll.replaceAll('10.5.', '10.9.').replaceAll('tartan0', 'vx7').split('\n');
    const firstRules = nftAll.split('\n');
    expect(both.split('\n')).toEqual([
      ...firstRules.slice(0, 2),
      ...secondRules.slice(2, 6),
      ...firstRules.slice(2, 6),
      ...firstRules.slice(6, 7),
      ...secondRules.slice(7),
      ...firstRules.slice(7),
    ]);
    expect(nftCase(nftListed, plan, second)).toContain('delete rule ip tartan postrouting handle 6');
    expect(nftCase(undefined, plan, { ...second, forward: false, masquerade: 'off' })).toBe(nftAll);
  });

  test('a device name that is not one word never reaches nft', () => {
    expect(() => nftCase(undefined, { ...plan, device: 'x" accept' })).toThrow(/not the name of a link/);
  });
});

describe('placement', () => {
  const place = (want: Partial<FirewallPlan>, iptables: string | undefined, nft: string[] | undefined): string => {
    const saved = iptables === undefined ? undefined : readSaveText(iptables);
    const got = placeFirewall([{ ...plan, ...want }], { iptables: saved, nft });
    const parts = ([part]: readonly FirewallPlan[]): string =>
      part ? `${part.forward ? 'forward' : ''}${part.masquerade === 'elsewhere' ? '' : '+masquerade'}` : '-';
    return `iptables ${parts(got.iptables)}, nftables ${parts(got.nftables)}`;
  };
  const quiet = '*filter\n:FORWARD ACCEPT [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\nCOMMIT\n';

  test.each([
    ['iptables and nft', false, docker20, [], 'iptables forward+masquerade, nftables -'],
    ['iptables only', false, docker20, undefined, 'iptables forward+masquerade, nftables -'],
    [
      'Docker on nftables',
      false,
      quiet,
      ['docker-bridges'],
      'iptables forward+masquerade, nftables forward+masquerade',
    ],
    ['nft only', false, undefined, [], 'iptables -, nftables forward+masquerade'],
    ['asked for', true, quiet, [], 'iptables -, nftables forward+masquerade'],
    ['asked for, Docker on iptables', true, docker28, [], 'iptables forward, nftables forward+masquerade'],
    [
      'asked for, a policy that drops',
      true,
      quiet.replace('FORWARD ACCEPT', 'FORWARD DROP'),
      [],
      'iptables forward, nftables forward+masquerade',
    ],
    [
      'asked for, a last rule that drops',
      true,
      quiet.replace('COMMIT', '-A FORWARD -j REJECT --reject-with icmp-host-prohibited\nCOMMIT'),
      [],
      'iptables forward, nftables forward+masquerade',
    ],
    [
      'asked for, INPUT drops in another table',
      true,
      `*mangle\n:FORWARD DROP [0:0]\nCOMMIT\n${quiet.replace(':', ':INPUT DROP [0:0]\n:')}`,
      [],
      'iptables -, nftables forward+masquerade',
    ],
    ['asked for, no nft', true, docker20, undefined, 'iptables forward+masquerade, nftables -'],
    ['asked for, iptables empty', true, '', ['docker-bridges'], 'iptables -, nftables forward+masquerade'],
  ])('%s', (_, nftables, iptables, nft, expected) => {
    expect(place({ nftables }, iptables, nft)).toBe(expected);
  });

  test('each part has a place of its own', () => {
    const asked = { ...second, nftables: true };
    expect(placeFirewall([plan, asked], { iptables: readSaveText(quiet), nft: [] })).toEqual({
      iptables: [plan],
      nftables: [asked],
      conflicts: [],
    });
  });
});

describe('both variants of iptables', () => {
  const nft = '# Generated by iptables-save v1.8.9 (nf_tables) on Mon\n*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n';
  const legacy = nft.replace(' (nf_tables)', '');

  test.each([
    ['nft, no legacy tables', nft, [], ['filter'], undefined],
    ['nft, legacy tables', nft, ['filter'], ['filter'], 'iptables-legacy'],
    ['nft with nothing, legacy tables', '', ['filter'], [], 'iptables-legacy'],
    ['nft with nothing but its warning', '# Warning: iptables-legacy tables present\n', ['nat'], [], 'iptables-legacy'],
    ['legacy, nothing of nft', legacy, ['filter'], ['docker-bridges'], undefined],
    ['legacy, tables of nft', legacy, ['filter'], ['nat'], 'iptables-nft'],
    ['legacy with nothing, tables of nft', '', [], ['nat'], 'iptables-nft'],
    ['nothing at all', '', [], [], undefined],
  ])('%s', (_, text, legacyTables, nftTables, expected) => {
    expect(otherVariant(text, legacyTables, nftTables)).toBe(expected);
  });

  test('foreign rules there are named by table, ours and empty chains are not', () => {
    expect(foreignTables(readSaveText(nft))).toEqual([]);
    expect(foreignTables(readSaveText(restored('', firewallCase(''))))).toEqual([]);
    expect(foreignTables(readSaveText(docker28))).toEqual(['raw', 'filter', 'nat']);
    expect(foreignTables(readSaveText(nft.replace('FORWARD ACCEPT', 'FORWARD DROP')))).toEqual(['filter']);
  });

  test('one program by two names is one', () => {
    expect(sameRules(nft, nft.replace('Mon', 'Tue').replace('[0:0]', '[7:420]'))).toBe(true);
    expect(sameRules(nft, docker20)).toBe(false);
  });
});

describe('running', () => {
  const { signal } = new AbortController();
  const legacyTablesFile = '/dev/null';

  interface FakeHost {
    readonly run: RunCommand;
    readonly calls: string[];
    saved: string;
  }

  /** iptables without nft, both variants of it the same. */
  function fakeIptables(refuses: (payload: string) => boolean): FakeHost {
    const fake: FakeHost = { run, calls: [], saved: '' };
    async function run(file: string, args: readonly string[], input: string): Promise<string> {
      if (file === 'nft') throw Object.assign(new Error('ENOENT'), { code: 'ENOENT' });
      fake.calls.push([file, ...args].join(' '));
      if (file === 'iptables-save') return fake.saved;
      if (refuses(input)) throw new Error('iptables-restore: unknown option "--random-fully"');
      fake.saved = restored(fake.saved, input);
      return '';
    }
    return fake;
  }

  test('one listing when all is as planned, one change for each table otherwise', async () => {
    const fake = fakeIptables(() => false);
    const firewall = new Firewall({ log: silentLog, run: fake.run, legacyTablesFile });
    const { steps } = await firewall.steps([plan], signal);
    for (const step of steps) await step.run();
    expect(await firewall.steps([plan], signal)).toEqual({ steps: [], conflicts: [] });
    const restore = 'iptables-restore --noflush --wait=4';
    expect(fake.calls).toEqual(['iptables-save', restore, restore, restore, 'iptables-save']);
  });

  test('an iptables without --random-fully: once refused, never asked again', async () => {
    const fake = fakeIptables(payload => payload.includes('--random-fully'));
    const firewall = new Firewall({ log: silentLog, run: fake.run, legacyTablesFile });
    for (const step of (await firewall.steps([plan], signal)).steps) await step.run();
    expect(fake.saved).toContain('-j MASQUERADE');
    expect((await firewall.steps([plan], signal)).steps).toEqual([]);
  });

  test('EnableNFTables without nft: by iptables, and a conflict', async () => {
    const firewall = new Firewall({ log: silentLog, run: fakeIptables(() => false).run, legacyTablesFile });
    const { steps, conflicts } = await firewall.steps([{ ...plan, nftables: true }], signal);
    expect(steps).toHaveLength(3);
    expect(conflicts).toEqual(['EnableNFTables: there is no nft program, so rules go by iptables; install nftables']);
  });

  test('neither program: a conflict where only acceptance is lost, a failing step where masquerade is wanted', async () => {
    const missing: RunCommand = (_, args, input, s) => runCommand('no-such-program', args, input, s);
    const firewall = new Firewall({ log: silentLog, run: missing, legacyTablesFile });
    const off: FirewallPlan = { ...plan, masquerade: 'off' };
    expect(await firewall.steps([off], signal)).toEqual({
      steps: [],
      conflicts: ['there is no iptables and no nft program: forward rules are not kept; install one of them'],
    });
    expect(await firewall.steps([{ ...off, forward: false }], signal)).toEqual({ steps: [], conflicts: [] });
    expect(await firewall.steps([], signal)).toEqual({ steps: [], conflicts: [] });
    const [step] = (await firewall.steps([plan], signal)).steps;
    await expect(step?.run()).rejects.toThrow(/install one of them, or start with --ip-masq=false/);
  });

  test('what replaces them is refused: the rules of the other kind stay', async () => {
    const fake = fakeIptables(() => false);
    const before = new Firewall({ log: silentLog, run: fake.run, legacyTablesFile });
    for (const step of (await before.steps([plan], signal)).steps) await step.run();
    const made = fake.saved;
    const refusing: RunCommand = async (file, args, input, s) => {
      if (file !== 'nft') return fake.run(file, args, input, s);
      if (args[0] === '-f') throw new Error('nft: Could not process rule: No such file or directory');
      return '';
    };
    const firewall = new Firewall({ log: silentLog, run: refusing, legacyTablesFile });
    const { steps } = await firewall.steps([{ ...plan, nftables: true }], signal);
    const results = { changes: [], failures: [] as string[] };
    await runSteps(steps, results, signal);
    expect(results.changes).toEqual([]);
    const [first, ...others] = results.failures;
    expect(first).toMatch(/No such file or directory$/);
    expect(others).toHaveLength(6);
    for (const other of others) expect(other).toMatch(/: waits for the rules that replace these$/);
    expect(fake.saved).toBe(made);
  });

  test('an nft that does not work disturbs nobody who does not ask for it', async () => {
    const fake = fakeIptables(() => false);
    const broken: RunCommand = (file, args, input, s) =>
      file === 'nft' ? Promise.reject(new Error('nft: Operation not supported')) : fake.run(file, args, input, s);
    const firewall = new Firewall({ log: silentLog, run: broken, legacyTablesFile });
    for (const step of (await firewall.steps([plan], signal)).steps) await step.run();
    expect(await firewall.steps([plan], signal)).toEqual({ steps: [], conflicts: [] });
    const [step] = (await firewall.steps([{ ...plan, nftables: true }], signal)).steps;
    expect(step?.text).toBe('read nftables');
    await expect(step?.run()).rejects.toThrow('Operation not supported');
  });

  test('an nft that spells rules otherwise: changed once, not in every pass, and still put back', async () => {
    const nft = fakeNft(text => text.replaceAll('snat to', 'snat ip to'));
    const firewall = new Firewall({ log: silentLog, run: nft.run, legacyTablesFile });
    for (let pass = 0; pass < 3; pass++)
      for (const step of (await firewall.steps([plan], signal)).steps) await step.run();
    expect(nft.payloads).toHaveLength(1);
    nft.listed = nft.listed.replace(/.*snat ip to.*\n/, '');
    for (const step of (await firewall.steps([plan], signal)).steps) await step.run();
    expect(nft.payloads).toHaveLength(2);
    expect((await firewall.steps([plan], signal)).steps).toEqual([]);
  });

  test('another daemon than before lists first: an odd spelling is recorded by one more change', async () => {
    const nft = fakeNft(text => text.replaceAll('snat to', 'snat ip to'));
    for (let start = 0; start < 2; start++) {
      const firewall = new Firewall({ log: silentLog, run: nft.run, legacyTablesFile });
      for (const step of (await firewall.steps([plan], signal)).steps) await step.run();
      expect((await firewall.steps([plan], signal)).steps).toEqual([]);
    }
    expect(nft.payloads).toHaveLength(2);
  });

  /** An nft that does what it is told with our table, and lists it in its own spelling. */
  function tableNft(spell: (text: string) => string): { run: RunCommand; payloads: string[]; list(): string } {
    const chains = new Map<string, { readonly header: string; rules: string[] }>();
    const payloads: string[] = [];
    let handle = 0;
    const change = (line: string): void => {
      const [, verb, what, name = '', rest = ''] = /^(\w+) (\w+) ip tartan(?: (\w+) ?(.*))?$/.exec(line) ?? [];
      const chain = chains.get(name);
      if (verb === 'add' && what === 'chain' && !chain) chains.set(name, { header: rest.slice(2, -2), rules: [] });
      if (verb === 'insert') chain?.rules.unshift(`${spell(rest)} # handle ${++handle}`);
      if (chain && verb === 'delete' && what === 'rule')
        chain.rules = chain.rules.filter(rule => !rule.endsWith(` # ${rest}`));
      if (verb === 'delete' && what === 'chain') chains.delete(name);
    };
    const list = (): string =>
      [...chains]
        .map(([name, { header, rules }]) => [`\tchain ${name} {`, header, ...rules].join('\n\t\t'))
        .join('\n\t}\n');
    const run: RunCommand = async (file, args, input) => {
      if (file !== 'nft') throw Object.assign(new Error('ENOENT'), { code: 'ENOENT' });
      if (args[0] === '-f') payloads.push(input);
      if (args[0] === '-f') input.split('\n').forEach(change);
      if (args[1] === 'tables') return chains.size === 0 ? '' : 'table ip tartan\n';
      return `table ip tartan {\n${list()}\n\t}\n}\n`;
    };
    return { run, payloads, list };
  }

  test('while a plan is not known yet, the rules of the other network stay, however nft spells them', async () => {
    const nft = tableNft(text => text.replaceAll('snat to', 'snat ip to'));
    const rules = (): string[] => [...nft.list().matchAll(/ip saddr.*tartan"/g)].map(String).sort();
    const passes = async (firewall: Firewall, parts: readonly FirewallPlan[], keeps: boolean): Promise<void> => {
      for (let pass = 0; pass < 3; pass++)
        for (const step of (await firewall.steps(parts, signal, keeps)).steps) await step.run();
    };
    const open = (): Firewall => new Firewall({ log: silentLog, run: nft.run, legacyTablesFile });
    await passes(open(), [plan, second], false);
    const made = rules();
    expect(made).toHaveLength(12);
    const firewall = open();
    await passes(firewall, [second], true);
    expect([...new Set(rules())]).toEqual(made);
    await passes(firewall, [plan, second], false);
    expect(rules()).toEqual(made);
    expect(nft.payloads).toHaveLength(3);
    await passes(firewall, [second], false);
    expect(rules()).toEqual(made.filter(rule => rule.includes(' 10.9.')));
  });

  test("a program's last words are its error, its environment is bare, an abort ends it", async () => {
    process.env['TARTAN_TEST_SECRET'] = 'hunter2';
    expect(await runCommand('env', [], '', signal)).not.toContain('hunter2');
    await expect(runCommand('sh', ['-c', 'echo bad rule >&2; exit 2'], 'x'.repeat(1e6), signal)).rejects.toThrow(
      'sh: bad rule',
    );
    await expect(runCommand('false', [], '', signal)).rejects.toThrow('false: ended with 1');
    const ending = new AbortController();
    const running = runCommand('sleep', ['60'], '', ending.signal);
    ending.abort(new Error('over'));
    await expect(running).rejects.toThrow('over');
  });
});
