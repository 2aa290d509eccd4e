/**
 * Who reaches whom through real Docker engines, and whose address the receiver sees: one table, for every engine, kind
 * of rules, masquerade and order of starts. TARTAN_DOCKER_MATRIX=all runs every combination (about half an hour), else
 * each engine runs once. In both directions, by TCP and by UDP.
 */
import { afterAll, beforeAll, describe, expect, onTestFailed, test } from 'vitest';
import { Scope } from '../../src/lib/scope.js';
import { DockerEngine, type EngineVersion } from '../support/docker-engine.js';
import { expectWell } from '../support/doctor.js';
import { engineOf, FlowBed, masquerades, type Masquerade } from '../support/flow-bed.js';
import { Lab } from '../support/lab.js';

type Exceptions = Readonly<Partial<Record<EngineVersion | Masquerade, string>>>;
type Row = readonly [asker: string, asked: string, seen: string, but?: Exceptions];

/** Nobody gives it the host's address, and who is outside has no way back to its own. */
const leaving = (who: string): Exceptions => ({ nobody: `tcp silence, udp ${who} unheard` });
/** docker-proxy before 28 answers datagrams from another address than the one that was asked. */
const hairpin: Exceptions = { '20': 'tcp bridge, udp bridge unheard', '26': 'tcp bridge, udp bridge unheard' };

/** Asker, asked, whom the asked one sees; what it is instead with that engine, or when that one masquerades. */
const table: readonly Row[] = [
  // The overlay: a container is seen as itself, a host as its tunnel, a published port is one more way in.
  ['box', 'there.box:7000', 'box'],
  ['box', 'there.box:7001', 'box'],
  ['box', 'there.tunnel:7000', 'box'],
  ['box', 'there.tunnel:7101', 'box'],
  ['box', 'there.bridge:7000', 'box'],
  ['box', 'there.bridge:7101', 'box'],
  ['host', 'there.box:7000', 'tunnel'],
  ['host', 'there.box:7001', 'tunnel'],
  ['host', 'there.tunnel:7000', 'tunnel'],
  ['host', 'there.tunnel:7101', 'tunnel'],
  // A network of its own on a part of the subnet is the overlay too, and isolated from docker0 as Docker has it.
  ['other', 'there.box:7000', 'other'],
  ['box', 'there.other:7000', 'box'],
  ['box', 'there.other:7001', 'box'],
  ['other', 'there.other:7000', 'other'],
  ['other', 'there.other:7001', 'other'],
  ['other', 'there.tunnel:7000', 'other'],
  ['box', 'there.tunnel:7103', 'box'],
  ['host', 'there.other:7000', 'tunnel'],
  ['box', 'other:7000', 'silence'],
  ['other', 'box:7001', 'silence'],
  // A network outside of the overlay: peers know no way back, so it is seen as its host.
  ['plain', 'there.box:7000', 'tunnel'],
  ['plain', 'there.other:7000', 'tunnel'],
  ['plain', 'there.tunnel:7101', 'tunnel'],
  ['plain', 'box:7000', 'silence'],
  ['plain', 'world:7000', 'host'],
  // Its own host, and containers beside it.
  ['box', 'mate:7000', 'box'],
  ['box', 'host:7000', 'box'],
  ['box', 'bridge:7000', 'box'],
  ['box', 'tunnel:7000', 'box'],
  ['other', 'host:7000', 'other'],
  ['host', 'box:7000', 'bridge'],
  ['host', 'other:7000', 'otherbridge'],
  ['host', 'host:7101', 'host'],
  ['host', 'tunnel:7101', 'tunnel'],
  ['host', 'loopback:7101', 'bridge'],
  // Hairpin: docker-proxy asks in its place.
  ['box', 'host:7101', 'bridge', hairpin],
  ['box', 'bridge:7101', 'bridge'],
  ['box', 'tunnel:7101', 'bridge', hairpin],
  ['mate', 'host:7101', 'bridge', hairpin],
  // The world and other hosts' own addresses: as the host.
  ['box', 'world:7000', 'host', leaving('box')],
  ['other', 'world:7000', 'host', leaving('other')],
  ['box', 'there.host:7000', 'host', leaving('box')],
  ['box', 'there.host:7101', 'host', leaving('box')],
  ['box', 'there.host:7104', 'host', leaving('box')],
  ['other', 'there.host:7101', 'host', leaving('other')],
  ['host', 'there.host:7101', 'host'],
  // Who is outside keeps its address at published ports ...
  ['world', 'there.host:7101', 'world'],
  ['world', 'there.host:7103', 'world'],
  ['guest', 'tunnel:7101', 'guest'],
  // ... and reaches nothing else: what Docker keeps shut is not opened, and no host is a way into the overlay.
  ['guest', 'box:7000', 'silence'],
  ['guest', 'box:7001', 'guest', { '28': 'silence' }],
  ['guest', 'other:7000', 'silence'],
  ['stray', 'box:7000', 'silence'],
  ['stray', 'box:7001', 'silence'],
  ['stray', 'other:7001', 'silence'],
  ['stray', 'tunnel:7000', 'silence'],
  ['stray', 'tunnel:7101', 'silence'],
];

/** What `iptables` is on the hosts, and whether the network document asks for nftables. */
const kinds = {
  'iptables-nft': { iptables: 'nft', network: '{"Network":"10.5.0.0/16"}' },
  'iptables-legacy': { iptables: 'legacy', network: '{"Network":"10.5.0.0/16"}' },
  nftables: { iptables: 'nft', network: '{"Network":"10.5.0.0/16","EnableNFTables":true}' },
} as const;

/** In this order, each upon the one before. */
const stages = {
  'tartand first': async () => {},
  'Docker started again': (bed: FlowBed) => bed.restartDocker(),
  'tartand started again': (bed: FlowBed) => bed.restartTartand(),
  'then Docker once more': (bed: FlowBed) => bed.restartDocker(),
  'Docker first': (bed: FlowBed) => bed.rebootDockerFirst(),
} as const;
type Stage = keyof typeof stages;

interface Combination {
  readonly version: EngineVersion;
  readonly kind: keyof typeof kinds;
  readonly masquerade: Masquerade;
  readonly orders: readonly Stage[];
}

/** Bare packets whose source is in the overlay: a stray's are left to user space, and dropped by the receiver. */
const ofMembers = 'udp dst port 8285 and udp[8] & 0xf0 = 0x40 and udp[20:2] = 0x0a05';

/** Engines start and stop; a machine under load takes its time. */
const limitMs = 240_000;

const versions = ['20', '26', '28'] as const;
const allOrders = Object.keys(stages) as Stage[];
const chosen: readonly Combination[] = [
  { version: '20', kind: 'iptables-legacy', masquerade: 'Docker', orders: ['tartand first', 'Docker started again'] },
  { version: '26', kind: 'iptables-nft', masquerade: 'nobody', orders: ['tartand first', 'Docker first'] },
  {
    version: '28',
    kind: 'nftables',
    masquerade: 'tartand',
    orders: ['tartand first', 'Docker started again', 'tartand started again'],
  },
];
const every: readonly Combination[] = versions.flatMap(version =>
  (Object.keys(kinds) as (keyof typeof kinds)[]).flatMap(kind =>
    (Object.keys(masquerades) as Masquerade[]).map(masquerade => ({ version, kind, masquerade, orders: allOrders })),
  ),
);

const combinations = process.env['TARTAN_DOCKER_MATRIX'] === 'all' ? every : chosen;

for (const { version, kind, masquerade, orders } of combinations)
  describe.skipIf(!DockerEngine.available(version))(`Docker ${version}, ${kind}, masquerade by ${masquerade}`, () => {
    const scope = new Scope();
    let lab: Lab;
    let bed: FlowBed;
    beforeAll(async () => {
      const { iptables, network } = kinds[kind];
      const docker = { version, iptables, ...FlowBed.engineWords(masquerade) };
      lab = await Lab.open(scope, { nodes: ['a', 'b'], network, docker });
      bed = await FlowBed.open(lab, masquerade);
      // It is what the name says.
      const a = lab.node('a');
      expect(await engineOf(a).docker('version', '-f', '{{.Server.Version}}')).toMatch(new RegExp(`^${version}\\.`));
      expect(await a.run('iptables', '--version')).toContain(iptables === 'legacy' ? 'legacy' : 'nf_tables');
      const own = iptables === 'legacy' ? 'iptables-legacy-save' : 'iptables-nft-save';
      expect(await a.run(own, '-t', 'nat')).toMatch(/^:DOCKER /m);
    }, limitMs);
    afterAll(() => scope.close());

    test.each(orders)('%s', { timeout: limitMs }, async order => {
      onTestFailed(async () => {
        const a = lab.node('a');
        process.stderr.write(
          `${lab.lastWords()}\n${await a.run('iptables-save')}\n${await a.run('nft', 'list', 'tables')}\n`,
        );
      });
      await stages[order](bed);
      await bed.untilByKernel();
      const byUserSpace = await lab.captureUnderlay(ofMembers);
      await expectTable(bed, version, masquerade);
      expect(await byUserSpace.stop()).toEqual([]);
      // Where Docker masquerades, doctor says so, and rightly.
      // A stranger of the table sends by addresses that are not its own.
      if (masquerade !== 'Docker') await expectWell(lab.node('a'), ['spoofed-packets']);
    });
  });

/** Rules that others changed are put right within the time of a sweep. */
async function expectTable(bed: FlowBed, version: EngineVersion, masquerade: Masquerade): Promise<void> {
  const want = table.map(([asker, asked, seen, but]) => ({
    asker,
    asked,
    seen: but?.[version] ?? but?.[masquerade] ?? seen,
  }));
  const found = want.map(() => '');
  const differing = () => want.flatMap((row, i) => (row.seen === found[i] ? [] : [i]));
  for (const end = performance.now() + 10_000; differing().length > 0;) {
    const rows = differing();
    const answers = await bed.answers(rows.flatMap(i => want[i] ?? []));
    for (const [n, i] of rows.entries()) found[i] = answers[n] ?? '';
    if (performance.now() > end) break;
  }
  const lines = (seen: readonly string[]) => want.map(({ asker, asked }, i) => `${asker} -> ${asked}: ${seen[i]}`);
  expect(lines(found)).toEqual(lines(want.map(({ seen }) => seen)));
}
