/**
 * A TUN link with its queues, in a process of its own, so that it stands in a network namespace: what the kernel puts
 * into which queue. One JSON command a line on standard input, one answer a line on standard output.
 */
import { readSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { widenTunnel } from '../../dist/datapath/tun/descriptors.js';
import { native } from '../../dist/lib/native.js';

const vnetHeaderBytes = 10;
const buffer = Buffer.alloc(vnetHeaderBytes + 65_535);
let queues = [];

/** undefined when the queue is empty. */
function read(fd) {
  try {
    return buffer.subarray(vnetHeaderBytes, readSync(fd, buffer));
  } catch (error) {
    if (error.code === 'EAGAIN') return undefined;
    throw error;
  }
}

/** What bursts.c wrote into a datagram stands in its first fragment alone. */
function describe(packet, queue) {
  if (packet.length < 20 || packet[0] >> 4 !== 4) return { queue, bytes: packet.length };
  const fragment = packet.readUInt16BE(6) & 0x3fff;
  const seen = { queue, bytes: packet.length, protocol: packet[9], id: packet.readUInt16BE(4), fragment };
  if ((fragment & 0x1fff) !== 0 || packet[9] !== 17 || packet.length < 44) return seen;
  const port = packet.readUInt16BE(22);
  const [number, round] = [packet.readUInt32LE(28), packet.readUInt32LE(32)];
  return { ...seen, port, number, round, sentMs: Number(packet.readBigUInt64LE(36)) / 1e6 };
}

function* readAll() {
  for (const [queue, fd] of queues.entries())
    for (let packet = read(fd); packet; packet = read(fd)) yield describe(packet, queue);
}

const commands = {
  open({ device, lanes }) {
    const { fds, problem } = widenTunnel(native().openTun(device, true).fd, device, lanes);
    queues = fds;
    return { queues: fds.length, problem: problem ?? null };
  },
  /** Everything that waits, queue by queue. */
  read: () => [...readAll()],
};

const lines = createInterface({ input: process.stdin });
lines.on('line', line => {
  const { id, command, argument } = JSON.parse(line);
  try {
    process.stdout.write(`${JSON.stringify({ id, result: commands[command](argument) })}\n`);
  } catch ({ name, code, message }) {
    process.stdout.write(`${JSON.stringify({ id, error: { name, code, message } })}\n`);
  }
});
