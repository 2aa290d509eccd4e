/** Fault N11: each lane sends from a port of its own to peers that answer from it, and from 8285 to all others. */
import { execFileSync } from 'node:child_process';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { PeerMeasurement } from '../../src/datapath/datapath.js';
import { probeFeature } from '../../src/model/plan.js';
import { Lab, bothUp, run, until, type Daemon, type Host } from './datapath-lab.js';

let lab: Lab;

beforeEach(() => {
  lab = new Lab();
});
afterEach(() => lab.close());

function nft(host: Host, ...rules: readonly string[]): void {
  execFileSync('ip', ['netns', 'exec', lab.namespace(host), 'nft', '-f', '-'], {
    input: ['add table inet seen', 'delete table inet seen', 'add table inet seen', ...rules].join('\n'),
  });
}

/** Notes the source ports of data, whose first byte is that of an inner packet, and drops what `drop` names. */
function watch(host: Host, drop?: string): void {
  nft(
    host,
    'add set inet seen ports { type inet_service; flags dynamic; }',
    'add chain inet seen in { type filter hook input priority 0; }',
    'add rule inet seen in udp dport 8285 @th,64,4 4 add @ports { udp sport }',
    ...(drop === undefined ? [] : [`add rule inet seen in ${drop} drop`]),
  );
}

/** The ports since the last call. */
function ports(host: Host): readonly number[] {
  const inside = ['netns', 'exec', lab.namespace(host), 'nft'];
  const { nftables } = JSON.parse(run('ip', ...inside, '-j', 'list', 'set', 'inet', 'seen', 'ports'));
  run('ip', ...inside, 'flush', 'set', 'inet', 'seen', 'ports');
  return nftables.flatMap((entry: { set?: { elem?: readonly number[] } }) => entry.set?.elem ?? []);
}

/** Packets of one kind of flow after the other from b to a, and the ports from which they came. */
function portsOfBoth(): readonly number[] {
  lab.reaches();
  const flood =
    'socket(S,PF_INET,SOCK_DGRAM,0);my $to=pack_sockaddr_in(9,inet_aton("10.5.1.0"));' +
    'for (1..100) { send(S,"x"x1000,0,$to) for 1..40; select(undef,undef,undef,0.001) }';
  run('ip', 'netns', 'exec', lab.namespace('b'), 'perl', '-MSocket', '-e', flood);
  return ports('a');
}

async function publish(daemons: Readonly<Record<Host, Daemon>>): Promise<void> {
  for (const host of ['a', 'b'] as const)
    await daemons[host].call('publish', [{ ...(lab.peers(host)[0] as object), features: probeFeature }]);
}

test('lanes send from ports of their own to a peer whose answers arrive there', async () => {
  const daemons = await bothUp(lab, { lanes: 2 });
  watch('a');
  expect(await until('data of both kinds', portsOfBoth, seen => seen.length > 0)).toEqual([8285]);
  // A firewall of a that lets nothing in but to port 8285: what a asks from another port has no answer.
  watch('a', 'udp dport != 8285');
  watch('b');
  await publish(daemons);
  const own = await until('two ports', portsOfBoth, seen => seen.length === 2 && !seen.includes(8285));
  expect(new Set(own).size).toBe(2);
  expect(await lab.lost(500)).toBe(0);
  expect(ports('b')).toEqual([8285]);
  const { counters } = await daemons.a.state();
  const [measured] = (await daemons.a.call('measure')) as readonly PeerMeasurement[];
  expect(counters['rx_port']).toBe(0);
  expect(measured?.addressSeen).toBeUndefined();

  // Rules of another mind: answers do not get back to b any more.
  watch('b', 'udp dport != 8285');
  await until('the port of the network again', portsOfBoth, seen => seen.length === 1 && seen[0] === 8285, 15_000);
  expect(await lab.lost(500)).toBe(0);
}, 30_000);

test('a data process that takes over proves ports of its own, and loses nothing', async () => {
  const daemons = await bothUp(lab, { lanes: 2 });
  watch('a');
  await publish(daemons);
  const before = await until('two ports', portsOfBoth, seen => seen.length === 2 && !seen.includes(8285));
  const lost = lab.lost(1500);
  await daemons.b.call('start', { ...lab.config('b'), checkSource: false });
  expect(await lost).toBe(0);
  const after = await until('two ports again', portsOfBoth, seen => seen.length === 2 && !seen.includes(8285));
  expect(after.filter(port => before.includes(port))).toEqual([]);
}, 20_000);
