/** IPv4 packets as they lie in the tunnel's datagrams, with UDP and the contents that burst.c looks for. */

export interface InnerPacket {
  /** Of the datagram in its flow (burst.c). */
  readonly number: number;
  /** Of the whole packet. */
  readonly bytes: number;
  readonly source: string;
  readonly destination: string;
  readonly port: number;
}

const headerBytes = 20;
const udpBytes = 8;
const sourcePort = 40_001;

function contents(number: number, bytes: number): Buffer {
  const data = Buffer.alloc(bytes + 4);
  data.writeUInt32LE(number, 0);
  data.writeUInt32LE(bytes, 4);
  let state = (Math.imul(number, 0x9e3779b1) ^ bytes) | 1;
  for (let at = 8; at < bytes; at += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    data.writeInt32LE(state, at);
  }
  return data.subarray(0, bytes);
}

/** RFC 1071. */
function checksum(data: Buffer): number {
  let sum = 0;
  for (let at = 0; at < data.length; at += 2)
    sum += at + 1 < data.length ? data.readUInt16BE(at) : (data[at] ?? 0) << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** The packet with other bytes from `at` on and the header checksum that goes with them. */
export function changed(packet: Buffer, at: number, ...values: readonly number[]): Buffer {
  const copy = Buffer.from(packet);
  copy.set(values, at);
  copy.writeUInt16BE(0, 10);
  copy.writeUInt16BE(checksum(copy.subarray(0, headerBytes)), 10);
  return copy;
}

export function innerPacket(o: InnerPacket): Buffer {
  const header = Buffer.alloc(headerBytes);
  header[0] = 0x45;
  header.writeUInt16BE(o.bytes, 2);
  header.writeUInt16BE(o.number, 4);
  header.set([0x40, 0, 64, 17], 6);
  header.set([...o.source.split('.'), ...o.destination.split('.')].map(Number), 12);
  const udp = Buffer.alloc(udpBytes);
  const payload = contents(o.number, o.bytes - headerBytes - udpBytes);
  udp.writeUInt16BE(sourcePort, 0);
  udp.writeUInt16BE(o.port, 2);
  udp.writeUInt16BE(udpBytes + payload.length, 4);
  const pseudo = Buffer.from([0, 17, 0, 0]);
  pseudo.writeUInt16BE(udpBytes + payload.length, 2);
  udp.writeUInt16BE(checksum(Buffer.concat([header.subarray(12), pseudo, udp, payload])) || 0xffff, 6);
  return changed(Buffer.concat([header, udp, payload]), 0, 0x45);
}
