/**
 * One end of flows, in the network namespace it is started in: one JSON line a question on standard input, one an
 * answer on standard output. A TCP server tells everybody the address it sees; a UDP one remembers who spoke to it.
 */
import { createSocket } from 'node:dgram';
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';

const heard = [];

const actions = {
  serve: ({ port }) =>
    new Promise(resolve => {
      createServer(socket => {
        socket.on('error', () => {});
        socket.end(socket.remoteAddress?.replace('::ffff:', ''));
      }).listen(port, '0.0.0.0', () => resolve(true));
    }),
  /** The address that the server sees, null when there is no connection in time. */
  ask: ({ to, port, from, waitMs }) =>
    new Promise(resolve => {
      const socket = connect({ host: to, port, localAddress: from });
      let text = '';
      const end = answer => {
        clearTimeout(timer);
        socket.destroy();
        resolve(answer);
      };
      const timer = setTimeout(() => end(null), waitMs);
      socket.on('data', chunk => (text += chunk));
      socket.on('end', () => end(text));
      socket.on('error', () => end(null));
    }),
  listen: ({ port }) =>
    new Promise(resolve => {
      const socket = createSocket('udp4', (message, { address }) => heard.push(`${message} from ${address}`));
      socket.bind(port, () => resolve(true));
    }),
  heard: () => heard,
  say: ({ to, port, from, text }) =>
    new Promise(resolve => {
      const socket = createSocket('udp4');
      socket.bind(0, from, () => socket.send(text, port, to, error => (socket.close(), resolve(!error))));
    }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { id, action, ...options } = JSON.parse(line);
  Promise.resolve(actions[action](options)).then(value => {
    process.stdout.write(`${JSON.stringify({ id, value })}\n`);
  });
}
process.exit();
