/**
 * Packets through the rules of Docker engines, without ours and with ours: who reaches whom, and the source that the
 * far end sees. Topology: see flow-lab.ts.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { engine29, engineStart, type RecordedEngine } from '../support/docker-rules.js';
import { kinds, planOf, type Kind } from '../support/firewall-texts.js';
import { addresses, FlowLab } from '../support/flow-lab.js';
import type { RemoteHost } from '../support/host-lab.js';

interface Case {
  readonly engine: RecordedEngine;
  readonly kind: Kind;
  readonly masquerade: boolean;
}

const cases: readonly Case[] = ([20, 28] as const).flatMap(engine =>
  kinds.flatMap(kind => [false, true].map(masquerade => ({ engine, kind, masquerade }))),
);

const { host, lan, tunnel, container, peer, forged } = addresses;
/** Published by the engine, in the container's own terms, and not. */
const [published, unpublished] = [80, 81];

let lab: FlowLab;
let hosts: Readonly<Record<Kind, RemoteHost>>;
let withoutIptables: RemoteHost;

beforeAll(async () => {
  lab = await FlowLab.open();
  const nft = await lab.host.host();
  hosts = { nft, nftables: nft, legacy: await lab.host.host({ legacy: true }) };
  withoutIptables = await lab.host.host({ without: ['iptables'] });
  lab.host.emptyFilters();
});

afterAll(() => lab.close());
afterEach(() => lab.host.emptyFilters());

function startEngine({ engine, kind, masquerade }: Case): void {
  const program = kind === 'legacy' ? 'iptables-legacy' : 'iptables-nft';
  const hasDockerUser = lab.host.run(`${program}-save`).includes(':DOCKER-USER');
  lab.host.run(`${program}-restore --noflush`, engineStart(engine, masquerade, hasDockerUser));
}

/** Datagrams from the lan with a source of the overlay, then one of the peer: what comes must be the last one only. */
async function forging(): Promise<string> {
  const name = `${performance.now()}`;
  for (let i = 0; i < 3; i++) await lab.say('lan', `forged ${name}`, forged);
  await lab.say('peer', `real ${name}`, peer);
  const ours = async (): Promise<readonly string[]> => (await lab.heard()).filter(text => text.includes(name));
  await vi.waitFor(async () => expect(await ours()).toContain(`real ${name} from ${peer}`), { timeout: 20_000 });
  return (await ours()).join('; ').replaceAll(` ${name}`, '');
}

type Flows = Readonly<Record<string, string | null>>;

/** @param expected decides how long silence is listened to */
async function flows(expected: Flows): Promise<Flows> {
  const ways: Readonly<Record<string, () => Promise<string | null>>> = {
    'peer to a published port': () =>
      lab.source('peer', container, published, expected['peer to a published port'] ?? null),
    'peer to an unpublished port': () =>
      lab.source('peer', container, unpublished, expected['peer to an unpublished port'] ?? null),
    'container to peer': () => lab.source('container', peer, 80, expected['container to peer'] ?? null),
    'container to lan': () => lab.source('container', lan, 80, expected['container to lan'] ?? null),
    'lan to the published port': () => lab.source('lan', host, 8080, expected['lan to the published port'] ?? null),
    'host to peer by its own address': () =>
      lab.source('host', peer, 80, expected['host to peer by its own address'] ?? null, host),
  };
  const seen = await Promise.all(
    Object.keys(expected).map(async name => [name, (await ways[name]?.()) ?? null] as const),
  );
  return Object.fromEntries(seen);
}

const withOurs: Flows = {
  'peer to a published port': peer,
  'peer to an unpublished port': peer,
  'container to peer': container,
  'container to lan': host,
  'lan to the published port': lan,
  'host to peer by its own address': tunnel,
};

/** What docker.md tables: 28 drops in raw, also the answers to a container that kept its source. */
function withoutOurs({ engine, masquerade }: Case): Flows {
  return {
    'peer to a published port': engine === 28 ? null : peer,
    'peer to an unpublished port': null,
    'container to peer': masquerade ? tunnel : engine === 28 ? null : container,
    'lan to the published port': lan,
  };
}

describe.each(cases)('Docker $engine, $kind, its masquerade $masquerade', one => {
  const plan = planOf(one.kind);

  test('Docker first', async () => {
    startEngine(one);
    const before = lab.host.filters();
    expect(await flows(withoutOurs(one))).toEqual(withoutOurs(one));
    await hosts[one.kind].apply('default', plan);
    expect(await hosts[one.kind].apply('default', plan)).toEqual({ changes: [], conflicts: [] });
    expect(await flows(withOurs)).toEqual(withOurs);
    expect(await forging()).toBe(`real from ${peer}`);
    await hosts[one.kind].apply('default', { ...plan, firewall: [] });
    expect(lab.host.filters()).toBe(before);
  });

  test('we first, then Docker, then Docker again', async () => {
    await hosts[one.kind].apply('default', plan);
    startEngine(one);
    await hosts[one.kind].apply('default', plan);
    expect(await flows(withOurs)).toEqual(withOurs);
    // As an engine that starts again does: its masquerade and its jumps above ours.
    const program = one.kind === 'legacy' ? 'iptables-legacy' : 'iptables-nft';
    if (one.masquerade) {
      lab.host.run(`${program} -t nat -D POSTROUTING -s 10.5.1.0/24 ! -o docker0 -j MASQUERADE`);
      lab.host.run(`${program} -t nat -I POSTROUTING -s 10.5.1.0/24 ! -o docker0 -j MASQUERADE`);
    }
    lab.host.run(`${program} -D FORWARD -j DOCKER-USER`);
    lab.host.run(`${program} -I FORWARD -j DOCKER-USER`);
    await hosts[one.kind].apply('default', plan);
    expect(await flows(withOurs)).toEqual(withOurs);
  });
});

describe.each([
  ['beside iptables', 'nft'],
  ['without iptables', 'none'],
  ['as the network document asks', 'nftables'],
] as const)('Docker 29 on nftables, %s', (_, kind) => {
  test('the mark passes, from the tunnel only, and no other bit of it changes', async () => {
    const own = kind === 'none' ? withoutIptables : hosts[kind];
    const plan = planOf(kind === 'nftables' ? 'nftables' : 'nft');
    lab.host.run('nft -f -', engine29);
    const others = `table ip others {
	chain before { type filter hook prerouting priority raw; iifname "tartan0" meta mark set 0x5; }
	chain after { type filter hook postrouting priority 0; oifname "docker0" meta mark 0x01000005 counter comment "both"; }
}
`;
    lab.host.run('nft -f -', others);
    const before = lab.host.filters();
    const blocked = { 'peer to an unpublished port': null };
    expect(await flows(blocked)).toEqual(blocked);
    await own.apply('default', plan);
    expect(await own.apply('default', plan)).toEqual({ changes: [], conflicts: [] });
    // Ports are not published in these rules.
    const { 'lan to the published port': _, ...passing } = withOurs;
    expect(await flows(passing)).toEqual(passing);
    expect(await forging()).toBe(`real from ${peer}`);
    expect(lab.host.run('nft list chain ip others after')).toMatch(/counter packets [1-9]\d* .*"both"/);
    await own.apply('default', { ...plan, firewall: [] });
    expect(lab.host.filters()).toBe(before);
  });
});
