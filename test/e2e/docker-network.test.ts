/** User-defined networks on the lease: docker0 has its first half, `tartan docker network create` the rest. */
import { expect, test } from 'vitest';
import { parseIpv4, parsePrefix, prefixContains } from '../../src/model/ip.js';
import { askedEngine, DockerEngine } from '../support/docker-engine.js';
import type { LabHost } from '../support/lab-host.js';
import { transfer } from '../support/traffic.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b'], docker: askedEngine() }, async opened => {
  if (!DockerEngine.available()) throw new Error('no dockerd: run test/support/setup.sh');
  await opened.bringUp({ 'docker-subnet-len': '25', 'ip-masq': 'true' });
});

function tool(host: LabHost, ...words: readonly string[]) {
  return host.tool('docker', ...words, '--docker-host', host.engine?.url ?? '');
}

const partOf = (host: LabHost, end: string): string => host.subnet.replace('0/24', end);

test('makes the same network once, on the free part of the lease', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const made = await Promise.all([a, b].map(host => tool(host, 'network', 'create', 'shop')));
  expect(made).toMatchObject([
    { status: 0, stderr: '', stdout: expect.stringContaining(`network shop was made: ${partOf(a, '128/26')}`) },
    { status: 0, stderr: '', stdout: expect.stringContaining(`network shop was made: ${partOf(b, '128/26')}`) },
  ]);
  const again = await tool(a, 'network', 'create', 'shop', '-o', 'json');
  expect(JSON.parse(again.stdout)).toMatchObject({ subnet: partOf(a, '128/26'), mtu: 1464, created: false });
  const other = await tool(a, 'network', 'create', 'shop', '--length', '27');
  expect(other).toMatchObject({ status: 1, stdout: '' });
  expect(other.stderr).toContain(`there is a network shop already, and its subnet is ${partOf(a, '128/26')}`);
  expect((await tool(a, 'verify')).status).toBe(0);
});

interface End {
  readonly name: string;
  readonly host: LabHost;
  /** Of its network namespace. */
  readonly letter: string;
  readonly address: string;
}

/** A container in the network shop; its namespace gets the name of one more host's container. */
async function startTill(host: LabHost, letter: string): Promise<End> {
  const { engine } = host;
  if (!engine) throw new Error('no engine');
  await engine.runContainer('till', { network: 'shop' });
  await lab().spaces.adoptContainer(letter, await engine.pidOf('till'));
  return { name: 'till', host, letter: `${letter}c`, address: await engine.addressOf('till') };
}

test('its containers reach those of the other host and are reached by them, with their own addresses', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const tills = [await startTill(a, 's'), await startTill(b, 't')];
  for (const { host, address } of tills)
    expect(prefixContains(parsePrefix(partOf(host, '128/26')), parseIpv4(address))).toBe(true);
  const boxes = [a, b].map(host => {
    return { name: 'box', host, letter: host.containerNamespace, address: host.containerAddress };
  });
  const ends: readonly End[] = [...tills, ...boxes];
  for (const from of ends) {
    for (const to of ends.filter(end => end.host !== from.host && (end.name === 'till' || from.name === 'till'))) {
      const where = { from: from.letter, to: to.letter, address: to.address, port: 7003 };
      const { sent, received } = await transfer(lab().spaces, { ...where, bytes: 1_000_000 });
      expect(received, `${from.name} to ${to.name}`).toEqual({ ...sent, source: from.address });
    }
  }
});

test('the host of the other end reaches them too', async () => {
  for (const [from, to] of lab().pairs) {
    const till = await to.engine?.addressOf('till');
    expect(await from.run('busybox', 'ping', '-c', '2', '-W', '2', till ?? '')).toContain(' 0% packet loss');
  }
});
