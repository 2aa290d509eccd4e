/** Bad lease entries in a real etcd (vectors/bad-values.json): each is refused alone and changes no other route. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

interface Row {
  readonly id: string;
  readonly kind: string;
  readonly name: string;
  readonly expect: string;
  readonly value: { readonly key: string; readonly value: string };
}

const vectors = JSON.parse(readFileSync(new URL('../vectors/bad-values.json', import.meta.url), 'utf8')) as Row[];
const subnets = '/coreos.com/network/subnets';
const own = '10.5.1.0/24';
const peer = '10.5.9.0/24';

/** What a test deletes must not stay routed into the next one. */
const obedient = { 'peer-hold-down': '0' };

/** The vectors are written for a host with 10.5.1.0/24 at 192.0.2.1. */
const lab = useLab({ nodes: ['a', 'b'] }, async opened => {
  opened.node('a').preferSubnet(own);
  opened.node('b').preferSubnet(peer);
  await opened.bringUp(obedient);
});

/** The file abbreviates long values as `A*1500000`. */
function expand(text: string): string {
  return text.replace(/A\*(\d+)/, (_, count: string) => 'A'.repeat(Number(count)));
}

let marks = 0;

/** A sound lease written after the bad entry: when it is routed, the entry has been seen. */
async function mark(): Promise<string> {
  const subnet = `10.5.${100 + marks++}.0/24`;
  await lab().etcd.put(`${subnets}/${subnet.replace('/', '-')}`, '{"PublicIP":"192.0.2.77","BackendType":"udp"}');
  await until(`${subnet} is routed`, async () => (await lab().node('a').peerSubnets()).includes(subnet));
  return subnet;
}

async function peersWith(keys: readonly string[], value: string): Promise<readonly string[]> {
  const a = lab().node('a');
  const paths = keys.map(key => `${subnets}/${key}`);
  for (const path of paths) await lab().etcd.put(path, expand(value));
  const marked = await mark();
  const { peers } = await a.status();
  for (const path of [...paths, `${subnets}/${marked.replace('/', '-')}`]) await lab().etcd.delete(path);
  return peers
    .map(({ subnet, publicIp }) => `${subnet} ${publicIp}`)
    .filter(text => !text.startsWith(marked))
    .sort();
}

const ignored = vectors.filter(
  // V97 speaks of two leases of the vxlan backend, V103 and V81 are tests of their own.
  ({ id, kind, expect: reaction }) => kind === 'lease' && reaction.startsWith('ignore') && id !== 'V97',
);

test.each(ignored)('$id $name: ignored alone', async ({ value: { key, value } }) => {
  const a = lab().node('a');
  const before = a.daemon.events('peer.rejected').length;
  expect(await peersWith([unescape(key)], value)).toEqual([`${peer} 192.0.2.2`]);
  if (!key.includes('..')) expect(a.daemon.events('peer.rejected').length).toBe(before + 1);
  expect(a.daemon.running).toBe(true);
});

/** A NUL cannot be an argument of etcdctl; the rest of the vector's key can. */
function unescape(key: string): string {
  return key.replace('\\x00', '\u0001').replace('\\xff', '\u00ff');
}

test('V73 two subnets with one public IP: both are routed', async () => {
  const peers = await peersWith(['10.5.2.0-24', '10.5.4.0-24'], '{"PublicIP":"192.0.2.2"}');
  expect(peers).toEqual(['10.5.2.0/24 192.0.2.2', '10.5.4.0/24 192.0.2.2', `${peer} 192.0.2.2`]);
});

test('V101 __proto__ in the value: the public IP stays', async () => {
  const row = vectors.find(({ id }) => id === 'V101');
  expect(await peersWith(['10.5.2.0-24'], row?.value.value ?? '')).toContain('10.5.2.0/24 192.0.2.2');
});

test('V103 4.5 MB of junk below subnets/: a starting host still converges', async () => {
  const a = lab().node('a');
  const junk = [1, 2, 3].map(number => `${subnets}/junk/${number}`);
  for (const key of junk) await lab().etcd.put(key, 'A'.repeat(1_500_000));
  await a.stopDaemon();
  await a.startDaemon(obedient).waitForEvent('daemon.ready');
  expect(await a.peerSubnets()).toEqual([peer]);
  for (const key of junk) await lab().etcd.delete(key);
});

test('V105 a reservation is routed and stays one', async () => {
  expect(await peersWith(['10.5.2.0-24'], '{"PublicIP":"192.0.2.2"}')).toContain('10.5.2.0/24 192.0.2.2');
});

test('the route between the two hosts worked all the time', async () => {
  expect(await lab().node('a').pingFromContainer(lab().node('b').containerAddress)).toBe(true);
});
