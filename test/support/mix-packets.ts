/** What an overlay must not change, between the containers of a MixLab, each as one function that returns what it saw. */
import { randomBytes } from 'node:crypto';
import type { LabHost } from './lab-host.js';
import type { MixLab } from './mix-lab.js';
import { fragmentsOf, RawListener, sendRaw, type RawPacket, type ReceivedPacket } from './raw.js';
import { until } from './tools.js';
import { transfer, type Transfer } from './traffic.js';

/** A protocol that no stack answers to: for experiments (RFC 3692). */
const experimental = 253;
/** The protocol of IPsec's payloads, and the index of one security association. */
const [esp, espIndex] = [50, 0x7a_72_74_61];

export interface Ends {
  readonly from: LabHost;
  readonly to: LabHost;
}

export function bothWays({ a, b }: MixLab): readonly Ends[] {
  return [
    { from: a, to: b },
    { from: b, to: a },
  ];
}

interface Crossed {
  readonly sent: number;
  readonly intact: number;
}

function crossed(sent: readonly RawPacket[], came: readonly ReceivedPacket[]): Crossed {
  const intact = sent.filter(({ payload }) => came.some(one => one.payload.equals(payload)));
  return { sent: sent.length, intact: intact.length };
}

function packet({ from, to }: Ends, more: Partial<RawPacket> = {}): RawPacket {
  const [source, destination] = [from.containerAddress, to.containerAddress];
  return { source, destination, protocol: experimental, payload: randomBytes(200), ...more };
}

/** @returns what came of the packets, in the order in which they were sent */
async function cross(
  ends: Ends,
  packets: readonly RawPacket[],
  expected = packets.length,
): Promise<readonly ReceivedPacket[]> {
  const { spaces } = ends.from;
  const listener = await RawListener.open(spaces, ends.to.containerNamespace, packets[0]?.protocol ?? 0);
  try {
    await sendRaw(spaces, ends.from.containerNamespace, packets);
    return await listener.take(expected);
  } finally {
    listener.close();
  }
}

/** Packets as those of one IPsec tunnel are (RFC 4303), of all lengths: this kernel may not make them itself (INET_ESP). */
export async function crossEsp(ends: Ends): Promise<Crossed> {
  const lengths = [16, 100, 1000, 1300, 1400, 1440];
  const packets = Array.from({ length: 60 }, (_, number) => {
    const payload = randomBytes(lengths[number % lengths.length] ?? 0);
    payload.writeUInt32BE(espIndex, 0);
    payload.writeUInt32BE(number, 4);
    return packet(ends, { protocol: esp, payload });
  });
  return crossed(packets, await cross(ends, packets));
}

/** A packet with the TTL 64, an option that routers leave alone (stream identifier, RFC 791), and all marks of ECN. */
export async function crossMarked(ends: Ends): Promise<readonly ReceivedPacket[]> {
  const options = Buffer.from('88041234', 'hex');
  return cross(ends, [packet(ends), packet(ends, { options }), ...[1, 2, 3, 0xb8].map(tos => packet(ends, { tos }))]);
}

/** A datagram of 4,000 bytes in fragments, in the order of their places and in the reverse; and in pieces of 64 bytes. */
export async function crossFragments(ends: Ends): Promise<Crossed> {
  const whole = [4000, 4000, 1000].map(bytes => packet(ends, { payload: randomBytes(bytes) }));
  const [first = [], second = [], third = []] = whole.map((one, at) =>
    fragmentsOf(one, at === 2 ? 64 : 1024, 901 + at),
  );
  return crossed(whole, await cross(ends, [...first, ...[...second].reverse(), ...third], whole.length));
}

/**
 * The ECN marks with which packets arrive that were congested on the underlay, by RFC 6040.
 * @param port of the outer datagrams
 */
export async function crossCongested(mix: MixLab, port: number, marks: readonly number[]): Promise<readonly number[]> {
  const ends = { from: mix.a, to: mix.b };
  const mark = `udp dport ${port} ip saddr ${mix.address('a')} ip ecn set ce`;
  const chain = `chain c { type filter hook prerouting priority -400; ${mark}; }`;
  await mix.b.run('nft', `table ip congested { ${chain}; }`);
  try {
    const came = await cross(
      ends,
      marks.map(tos => packet(ends, { tos })),
    );
    return came.map(({ tos }) => tos & 3);
  } finally {
    await mix.b.run('nft', 'delete table ip congested');
  }
}

/** What becomes of a ping with DF and so many bytes of IP: it arrives, or the MTU with which it is answered. */
export async function probeDf({ from, to }: Ends, bytes: number): Promise<'arrives' | number> {
  // Else what was learnt before answers in the container.
  await from.inContainer('ip', 'route', 'flush', 'cache');
  const ping = ['ping', '-n', '-M', 'do', '-c', '1', '-W', '1', '-s', String(bytes - 28), to.containerAddress];
  const { status, stdout, stderr } = await from.inContainer(...ping);
  if (status === 0) return 'arrives';
  const mtu = /mtu\s*=\s*(\d+)/.exec(stdout + stderr)?.[1];
  if (mtu === undefined) throw new Error(`a ping with DF and ${bytes} bytes was lost:\n${stdout}${stderr}`);
  return Number(mtu);
}

/** @returns the answer to one byte too many, and whether the longest packet arrives */
export async function longestDf(ends: Ends, bytes: number): Promise<readonly ('arrives' | number)[]> {
  return [await probeDf(ends, bytes), await probeDf(ends, bytes + 1)];
}

/** So that the container sends what does not fit into the tunnel. */
export async function widenContainer(host: LabHost): Promise<void> {
  const links = ['br-ct', 'ct0'].map(link => host.run('ip', 'link', 'set', link, 'mtu', '1500'));
  await Promise.all([...links, host.inContainer('ip', 'link', 'set', 'eth0', 'mtu', '1500')]);
}

/** While the route to b has that MTU: the same for a DF packet of `bytes`, and whether one of 1,400 without DF arrives. */
export async function onNarrowPath(
  mix: MixLab,
  mtu: number,
  bytes: number,
): Promise<readonly ('arrives' | number | boolean)[]> {
  const route = [`${mix.address('b')}/32`, 'dev', mix.underlay];
  const ends = { from: mix.a, to: mix.b };
  await mix.a.run('ip', 'route', 'replace', ...route, 'mtu', String(mtu));
  try {
    await until('the narrow path is known', async () => (await probeDf(ends, bytes + 1)) !== 'arrives').catch(() => {});
    const answers = await longestDf(ends, bytes);
    const plain = ['ping', '-n', '-M', 'dont', '-c', '3', '-i', '0.2', '-W', '1', '-s', '1372', mix.b.containerAddress];
    return [...answers, (await mix.a.inContainer(...plain)).stdout.includes(' 0% packet loss')];
  } finally {
    await mix.a.run('ip', 'route', 'del', ...route);
    await until('the path as it was', async () => (await probeDf(ends, bytes + 1)) === 'arrives');
  }
}

/** One TCP connection each way at once inside a VXLAN of the containers. */
export async function crossVxlan({ a, b, lab }: MixLab, bytes: number): Promise<readonly Transfer[]> {
  for (const [host, other, address] of [
    [a, b, '10.77.0.1/30'],
    [b, a, '10.77.0.2/30'],
  ] as const) {
    const kind = [
      'type',
      'vxlan',
      'id',
      '5',
      'dstport',
      '4789',
      'local',
      host.containerAddress,
      'remote',
      other.containerAddress,
    ];
    // 50 bytes of headers around what the tunnel carries.
    for (const words of [
      ['link', 'add', 'vx0', 'mtu', '1414', ...kind],
      ['address', 'add', address, 'dev', 'vx0'],
      ['link', 'set', 'vx0', 'up'],
    ])
      await mustSucceed(host, 'ip', ...words);
  }
  const streams = [
    { from: 'ac', to: 'bc', address: '10.77.0.2' },
    { from: 'bc', to: 'ac', address: '10.77.0.1' },
  ];
  try {
    return await Promise.all(streams.map(one => transfer(lab.spaces, { ...one, port: 7005, bytes })));
  } finally {
    for (const host of [a, b]) await mustSucceed(host, 'ip', 'link', 'del', 'vx0');
  }
}

async function mustSucceed(host: LabHost, ...command: readonly string[]): Promise<void> {
  const { status, stderr } = await host.inContainer(...command);
  if (status !== 0) throw new Error(`${command.join(' ')} in the container of ${host.letter}: ${stderr}`);
}
