/** Our rules beside others' in a namespace, with the real programs: nothing of others changes, ours come back. */
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { parsePrefix } from '../../src/model/ip.js';
import { engineStart } from '../support/docker-rules.js';
import { kernelRules, kinds, planOf, type Kind } from '../support/firewall-texts.js';
import { HostLab, type HostPrograms, type RemoteHost } from '../support/host-lab.js';

let lab: HostLab;
let hosts: Readonly<Record<Kind, RemoteHost>>;

beforeAll(async () => {
  lab = await HostLab.open();
  const nft = await lab.host();
  hosts = { nft, nftables: nft, legacy: await lab.host({ legacy: true }) };
  lab.emptyFilters();
});

afterAll(() => lab.close());
afterEach(async () => {
  await Promise.all(passing.splice(0).map(host => host.close()));
  lab.emptyFilters();
});

const passing: RemoteHost[] = [];

/** Another host process on the same namespace, for one test. */
async function openHost(programs?: HostPrograms): Promise<RemoteHost> {
  const host = await lab.host(programs);
  passing.push(host);
  return host;
}

function lines(text: string, isKept: (line: string) => boolean): string {
  return text.split('\n').filter(isKept).join('\n');
}

/** Everything but our rules and chains; nft shows the rules of iptables without their comments. */
function foreign(): string {
  return lines(lab.filters(), line => !/tartan|TARTAN|ip saddr 10\.5\.[17]\.0\/24 ip daddr/.test(line));
}

describe.each(kinds)('%s', kind => {
  const iptables = kind === 'legacy' ? 'iptables-legacy' : 'iptables-nft';

  test('rules of others before, between and after ours survive a hundred passes', { timeout: 300_000 }, async () => {
    const host = hosts[kind];
    lab.run(`${iptables}-restore --noflush`, engineStart(28, true, false));
    await host.apply('default', planOf(kind));
    for (const [table, chain] of [
      ['raw', 'PREROUTING'],
      ['filter', 'DOCKER-USER'],
      ['filter', 'FORWARD'],
      ['nat', 'POSTROUTING'],
    ] as const) {
      for (const [at, net] of [
        ['-I', '198.51.100.1'],
        ['-A', '198.51.100.2'],
      ] as const)
        lab.run(
          `${iptables} -t ${table} ${at} ${chain} ${at === '-I' ? '1 ' : ''}-s ${net} -m comment --comment foreign -j RETURN`,
        );
      if (lab.run(`${iptables} -t ${table} -S ${chain}`).split('tartan').length > 2)
        lab.run(`${iptables} -t ${table} -I ${chain} 3 -s 198.51.100.3 -j RETURN`);
    }
    if (kind === 'nftables') {
      lab.run('nft insert rule ip tartan forward ip saddr 198.51.100.1 counter return');
      lab.run('nft add rule ip tartan postrouting ip saddr 198.51.100.2 counter return');
      lab.run('nft add rule ip tartan postrouting index 1 ip saddr 198.51.100.3 return');
    } else lab.run(`${iptables} -t nat -I TARTAN-POSTRTG 2 -s 198.51.100.4 -j RETURN`);
    const before = foreign();
    expect(before.match(/198\.51\.100/g)?.length).toBeGreaterThan(8);
    let changes = 0;
    for (let pass = 0; pass < 100; pass++) {
      const subnet = parsePrefix(pass % 10 < 5 ? '10.5.1.0/24' : '10.5.7.0/24');
      changes += (await host.apply('default', planOf(kind, { subnet }))).changes.length;
    }
    expect(changes).toBeGreaterThan(19);
    expect(foreign()).toBe(before);
    await host.cleanup();
    expect(foreign().match(/198\.51\.100/g)).toEqual(before.match(/198\.51\.100/g));
    expect(lab.filters()).not.toMatch(/"tartan"|--comment tartan/);
  });

  test('cleanup leaves both dumps as they were, on a bare host and beside others', async () => {
    const host = hosts[kind];
    for (const others of ['', engineStart(20, false, false)]) {
      if (others !== '') lab.run(`${iptables}-restore --noflush`, others);
      const before = lab.filters();
      await host.apply('default', planOf(kind));
      expect(lab.filters()).not.toBe(before);
      await host.cleanup();
      expect(lab.filters()).toBe(before);
      expect(await host.cleanup()).toEqual({ changes: [], conflicts: [] });
    }
  });
});

/** What is there of the engine kernel, whoever lists it. */
function kernelLines(kind: Kind): readonly string[] {
  const text =
    kind === 'nftables'
      ? lab.run('nft --numeric list table ip tartan')
      : lab.run(`iptables-${kind === 'legacy' ? 'legacy' : 'nft'} -t raw -S`);
  return text.split('\n').filter(line => /tartan-k|4790|TARTAN-MADE-OUTPUT|hook output/.test(line));
}

test.each(kinds)('%s: the rules of the engine kernel come and go with it, and cleanup leaves none', async kind => {
  const host = await openHost(kind === 'legacy' ? { legacy: true } : undefined);
  const bare = lab.filters();
  await host.apply('default', planOf(kind));
  const without = lab.filters();
  await host.apply('default', planOf(kind, { kernel: kernelRules }));
  expect(kernelLines(kind).filter(line => /notrack/.test(line))).toHaveLength(2);
  expect(kernelLines(kind).filter(line => /"?tartan-k"? .*drop/i.test(line))).toHaveLength(1);
  expect((await host.apply('default', planOf(kind, { kernel: kernelRules }))).changes).toEqual([]);
  await host.apply('default', planOf(kind));
  expect(kernelLines(kind)).toEqual([]);
  expect(lab.filters()).toBe(without);
  await host.apply('default', planOf(kind, { kernel: kernelRules }));
  await host.cleanup();
  expect(lab.filters()).toBe(bare);
});

describe('events', () => {
  test.each(['nft', 'nftables'] as const)('%s: everything flushed comes back by itself, in one change', async kind => {
    const host = await openHost();
    await host.apply('default', planOf(kind));
    const made = lab.filters();
    const passes: (readonly string[])[] = [];
    host.onChange(() => void host.apply('default', planOf(kind)).then(({ changes }) => passes.push(changes)));
    lab.run('nft flush ruleset');
    await vi.waitFor(() => expect(lab.filters()).toBe(made), { timeout: 20_000 });
    // Our own change rings once more, and that pass has nothing to do.
    await vi.waitFor(() => expect(passes.at(-1)).toEqual([]), { timeout: 20_000 });
    expect(passes.filter(changes => changes.length > 0)).toHaveLength(1);
  });

  test('a listing changes nothing, and so rings for nobody', async () => {
    const host = await openHost();
    const rings = async (): Promise<number> => {
      const before = host.rings;
      lab.run('nft add table ip bell');
      lab.run('nft delete table ip bell');
      await vi.waitFor(() => expect(host.rings).toBeGreaterThan(before), { timeout: 20_000 });
      return host.rings;
    };
    await host.apply('default', planOf('nft'));
    await rings();
    const before = await rings();
    for (let pass = 0; pass < 10; pass++) await host.apply('default', planOf('nft'));
    expect(host.rings - before).toBeLessThanOrEqual(1);
  });
});

describe('from one kind to another', () => {
  test('iptables to nftables and back: ours are in one place, never in none', async () => {
    const host = hosts.nft;
    await host.apply('default', planOf('nft'));
    const byIptables = lab.filters();
    const { changes } = await host.apply('default', planOf('nftables'));
    expect(changes[0]).toMatch(/^nft add table ip tartan; /);
    expect(changes.slice(1).every(change => !change.includes(' -I '))).toBe(true);
    expect(lab.filters()).not.toMatch(/DOCKER-USER|TARTAN|table ip (raw|nat|filter)/);
    const back = (await host.apply('default', planOf('nft'))).changes;
    expect(back.at(-1)).toBe('nft delete table ip tartan');
    expect(lab.filters()).toBe(byIptables);
  });

  test('EnableNFTables beside a Docker that comes later: what iptables drops is accepted there', async () => {
    const host = hosts.nft;
    await host.apply('default', planOf('nftables'));
    lab.run('iptables-nft-restore --noflush', engineStart(28, false, false));
    const { changes } = await host.apply('default', planOf('nftables'));
    expect(changes.map(change => change.split(' ').slice(0, 3).join(' '))).toEqual([
      'iptables -t raw',
      'iptables -t filter',
    ]);
    expect(lab.run('iptables-nft-save')).not.toContain('TARTAN-POSTRTG');
  });

  test('the host chooses the other variant: ours move, rules of others there are named', async () => {
    await hosts.nft.apply('default', planOf('nft'));
    await hosts.legacy.apply('default', planOf('legacy'));
    expect(lab.run('iptables-nft-save')).toBe('');
    expect(await hosts.legacy.apply('default', planOf('legacy'))).toEqual({ changes: [], conflicts: [] });
    lab.run('iptables-legacy -A FORWARD -s 198.51.100.1 -j DROP');
    const { conflicts } = await hosts.nft.apply('default', planOf('nft'));
    expect(conflicts).toEqual([
      expect.stringMatching(/^iptables_variants: iptables-legacy has rules of others too \(filter\)/),
    ]);
    expect(lab.run('iptables-legacy-save').match(/^-A.*/gm)).toEqual(['-A FORWARD -s 198.51.100.1/32 -j DROP']);
    lab.run('iptables-nft -A INPUT -s 198.51.100.1 -j DROP');
    const other = await hosts.legacy.apply('default', planOf('legacy'));
    expect(other.conflicts).toEqual([
      expect.stringMatching(/^iptables_variants: iptables-nft has rules of others too/),
    ]);
    await hosts.legacy.cleanup();
    await hosts.nft.cleanup();
    expect(lab.filters()).not.toMatch(/tartan/i);
  });
});

describe('programs that are missing', () => {
  test('no iptables: all by nft', async () => {
    const host = await openHost({ without: ['iptables'] });
    const before = lab.filters();
    await host.apply('default', planOf('nft'));
    expect(lab.run('nft list table ip tartan')).toMatch(/snat to ip saddr[^]*masquerade fully-random[^]*meta mark set/);
    expect(await host.apply('default', planOf('nft'))).toEqual({ changes: [], conflicts: [] });
    await host.apply('default', planOf('nft', { masquerade: 'not-fully-random' }));
    expect(lab.run('nft list table ip tartan')).not.toContain('fully-random');
    await host.cleanup();
    expect(lab.filters()).toBe(before);
  });

  test('no nft: by iptables, and EnableNFTables is told so', async () => {
    const host = await openHost({ without: ['nft'] });
    const { conflicts } = await host.apply('default', planOf('nftables'));
    expect(conflicts).toEqual([expect.stringMatching(/^EnableNFTables: there is no nft program/)]);
    expect(lab.run('iptables-nft-save')).toContain('TARTAN-POSTRTG');
  });

  test('neither: a failing step that says what to do, or a conflict', async () => {
    const host = await openHost({ without: ['iptables', 'nft'] });
    await expect(host.apply('default', planOf('nft'))).rejects.toThrow(
      /masquerade: there is no iptables and no nft program; install one of them, or start with --ip-masq=false/,
    );
    const { conflicts } = await host.apply('default', planOf('nft', { masquerade: 'off' }));
    expect(conflicts).toEqual([
      'there is no iptables and no nft program: forward rules are not kept; install one of them',
    ]);
    expect(await host.cleanup()).toEqual({ changes: [], conflicts: [] });
  });
});
