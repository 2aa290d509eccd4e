/**
 * ICMP of this host (RFC 792): sends echo requests, and hears replies and errors with what they quote. A raw socket hears
 * those of the whole host, so that errors about other packets of ours (UDP) are heard too; a ping socket hears its own.
 */
import { randomInt } from 'node:crypto';
import { native, type NativeAddon } from '../lib/native.js';
import { addressFromBytes, ipv4Number, type Ipv4 } from '../model/ip.js';

/** What an ICMP error quotes of the packet that it is about. */
export interface QuotedPacket {
  /** Undefined on a ping socket, where the kernel does not say it. */
  readonly source: Ipv4 | undefined;
  readonly destination: Ipv4;
  /** IP protocol: 1 ICMP, 17 UDP. */
  readonly protocol: number;
  /** Of an echo request. */
  readonly echo: { readonly identifier: number; readonly sequence: number } | undefined;
  /** Of a UDP datagram. */
  readonly ports: { readonly source: number; readonly destination: number } | undefined;
}

export type IcmpNews =
  | { readonly kind: 'reply'; readonly from: Ipv4; readonly identifier: number; readonly sequence: number }
  | {
      readonly kind: 'error';
      /** Who sent it: a router on the way, the destination, this host. */
      readonly from: Ipv4;
      readonly type: number;
      readonly code: number;
      /** Bytes of the longest packet that passes, of "fragmentation needed"; 0 from routers before RFC 1191. */
      readonly mtu: number | undefined;
      readonly quoted: QuotedPacket;
    };

export interface EchoRequest {
  readonly sequence: number;
  /** Bytes behind the ICMP header; with the headers a packet has 28 more. */
  readonly payloadBytes: number;
  /** Nobody on the way may cut the packet; the path MTU that the kernel remembers does not count. */
  readonly df: boolean;
}

export interface IcmpSocket {
  /** Which replies are ours. */
  readonly identifier: number;
  /** @throws an errno error in Node's shape: EMSGSIZE, ENETUNREACH, EPERM of a firewall */
  sendEcho(to: Ipv4, request: EchoRequest): void;
  close(): void;
}

type IcmpCalls = Pick<NativeAddon, 'icmpOpen' | 'icmpSend' | 'icmpWatch' | 'closeFd'>;

const echoReply = 0;
const unreachable = 3;
const echoRequest = 8;
const timeExceeded = 11;
const fragmentationNeeded = 4;
const icmpProtocol = 1;
const udpProtocol = 17;
const headerBytes = 8;
/** An IPv4 packet is no longer. */
const bufferBytes = 65_536;

/**
 * @param onNews called for each message, on the event loop
 * @throws EPERM or EACCES where this process may have neither kind of socket
 */
export function openIcmp(onNews: (news: IcmpNews) => void, calls: IcmpCalls = native()): IcmpSocket {
  const { fd, identifier } = calls.icmpOpen();
  const watch = calls.icmpWatch(fd, bufferBytes, (_error, packet) => {
    const news = packet && readIcmp(packet);
    if (news) onNews(news);
  });
  watch.unref();
  // A ping socket was given one by the kernel.
  const own = identifier || randomInt(1, 65_536);
  return {
    identifier: own,
    sendEcho: (to, { sequence, payloadBytes, df }) =>
      calls.icmpSend(fd, ipv4Number(to), formatEcho(own, sequence, payloadBytes), df),
    close() {
      watch.close();
      calls.closeFd(fd);
    },
  };
}

/** Bytes of the longest packet that the kernel would send there uncut. @returns undefined without a route */
export function pathMtuTo(to: Ipv4, calls: Pick<NativeAddon, 'pathMtu'> = native()): number | undefined {
  try {
    return calls.pathMtu(ipv4Number(to));
  } catch {
    return undefined;
  }
}

/** The bytes of an echo request with its checksum. */
export function formatEcho(identifier: number, sequence: number, payloadBytes: number): Buffer {
  const bytes = Buffer.alloc(headerBytes + payloadBytes, 0x74);
  bytes.fill(0, 0, headerBytes).writeUInt8(echoRequest, 0);
  bytes.writeUInt16BE(identifier, 4);
  bytes.writeUInt16BE(sequence, 6);
  bytes.writeUInt16BE(checksumOf(bytes), 2);
  return bytes;
}

/** Reads an IP packet. @returns undefined for what is neither an echo reply nor an error that quotes a packet */
export function readIcmp(packet: Buffer): IcmpNews | undefined {
  const outer = readHeader(packet);
  if (outer?.protocol !== icmpProtocol || outer.rest.length < headerBytes) return undefined;
  const { rest, source: from } = outer;
  const [type, code] = [rest.readUInt8(0), rest.readUInt8(1)];
  if (type === echoReply)
    return { kind: 'reply', from, identifier: rest.readUInt16BE(4), sequence: rest.readUInt16BE(6) };
  const quoted = type === unreachable || type === timeExceeded ? readQuoted(rest.subarray(headerBytes)) : undefined;
  if (!quoted) return undefined;
  const mtu = type === unreachable && code === fragmentationNeeded ? rest.readUInt16BE(6) : undefined;
  return { kind: 'error', from, type, code, mtu, quoted };
}

const reasons: Readonly<Record<number, string>> = {
  0: 'no route to its network',
  1: 'no route to it, or it does not answer ARP',
  2: 'it does not know the protocol',
  3: 'nobody listens on the port',
  9: 'administratively prohibited',
  10: 'administratively prohibited',
  13: 'administratively prohibited',
};

/** Says what an error means, without who sent it: `fragmentation needed, MTU 1400`. */
export function describeIcmpError({ type, code, mtu }: Extract<IcmpNews, { kind: 'error' }>): string {
  if (type === timeExceeded) return 'time exceeded (a loop of routes)';
  if (code === fragmentationNeeded) return `fragmentation needed${mtu ? `, MTU ${mtu}` : ''}`;
  return `unreachable: ${reasons[code] ?? `ICMP code ${code}`}`;
}

function readQuoted(bytes: Buffer): QuotedPacket | undefined {
  const header = readHeader(bytes);
  if (!header) return undefined;
  const { protocol, rest, source, destination } = header;
  const isEcho = protocol === icmpProtocol && rest.length >= headerBytes && rest.readUInt8(0) === echoRequest;
  const isUdp = protocol === udpProtocol && rest.length >= 4;
  return {
    source: ipv4Number(source) === 0 ? undefined : source,
    destination,
    protocol,
    echo: isEcho ? { identifier: rest.readUInt16BE(4), sequence: rest.readUInt16BE(6) } : undefined,
    ports: isUdp ? { source: rest.readUInt16BE(0), destination: rest.readUInt16BE(2) } : undefined,
  };
}

interface Header {
  readonly protocol: number;
  readonly source: Ipv4;
  readonly destination: Ipv4;
  readonly rest: Buffer;
}

function readHeader(packet: Buffer): Header | undefined {
  if (packet.length < 20 || packet.readUInt8(0) >> 4 !== 4) return undefined;
  const length = (packet.readUInt8(0) & 15) * 4;
  const source = addressFromBytes(packet.subarray(12, 16));
  const destination = addressFromBytes(packet.subarray(16, 20));
  if (length < 20 || packet.length < length || source === undefined || destination === undefined) return undefined;
  return { protocol: packet.readUInt8(9), source, destination, rest: packet.subarray(length) };
}

/** RFC 1071. */
function checksumOf(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at + 1 < bytes.length; at += 2) sum += bytes.readUInt16BE(at);
  if (bytes.length % 2 === 1) sum += bytes.readUInt8(bytes.length - 1) << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
