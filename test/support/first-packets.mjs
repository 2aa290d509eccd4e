// Receives outer packets (bare IPv4 in UDP) and writes one line for the first packet to each inner destination: its
// arrival in ms since the epoch, and the destination. Argument: the UDP port.
import { createSocket } from 'node:dgram';

const seen = new Set();
const socket = createSocket('udp4');
socket.on('message', packet => {
  const arrivedMs = performance.timeOrigin + performance.now();
  const destination = packet.subarray(16, 20).join('.');
  if (seen.has(destination)) return;
  seen.add(destination);
  process.stdout.write(`${arrivedMs} ${destination}\n`);
});
socket.bind(Number(process.argv[2]), () => process.stdout.write('ready\n'));
