/**
 * The datapath in a process of its own, so that a test can run it in a network namespace and kill it like a daemon.
 * One JSON command a line on standard input, one answer a line on standard output. The tree that the caller names may be
 * an earlier version.
 */
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';

const datapathFolder = `${process.argv[2]}/dist/datapath`;
const engineFolder = [`${datapathFolder}/tun`, datapathFolder].find(folder => existsSync(`${folder}/tun-engine.js`));
const { cleanupDatapath } = await import(`${engineFolder}/cleanup.js`);
const { openDatapath } = await import(`${engineFolder}/tun-engine.js`);
const bothEngines = `${datapathFolder}/kernel/kernel-engine.js`;
const { openEngines } = existsSync(bothEngines) ? await import(bothEngines) : {};

/** The peer with the members by which earlier versions know it: a route, whose endpoint was a hop before. */
const toEveryVersion = peer => ({ ...peer, subnet: peer.prefixes[0], hop: peer.endpoint });

const events = [];
const note = (event, message) => events.push(`${event}: ${message}`);
const log = { debug: note, info: note, warn: note, error: note };
let datapath;
let opened;
let changes = 0;

/** So many peers with numbers of their own, to whom nothing is sent (RFC 2544, RFC 1918). */
const manyPeers = (first, count) =>
  Array.from({ length: count }, (_, i) => ({
    identity: `many ${first + i}`,
    prefixes: [{ base: 10 * 2 ** 24 + 2 ** 23 + (first + i) * 64, length: 26 }],
    endpoint: 198 * 2 ** 24 + 18 * 2 ** 16 + first + i,
    port: 8285,
    features: 0,
  }));

const commands = {
  async open(options) {
    opened = { ...options, log };
    datapath = await (options.engines ? openEngines : openDatapath)(opened);
    datapath.onChange(() => changes++);
    return { adopted: datapath.adopted };
  },
  start: config => datapath.start(config),
  stop: () => datapath.stop(),
  publish: peers => datapath.publish(peers.map(toEveryVersion)),
  /** The peers given, and so many others from the first on. */
  publishMany: ({ peers, first, count }) => datapath.publish([...peers, ...manyPeers(first, count)]),
  forwardUntil: bootMs => datapath.forwardUntil(bootMs),
  fence: lost => datapath.fence(lost),
  check: () => datapath.check(),
  state: () => ({
    problems: datapath.problems,
    ...datapath.stats(),
    adopted: datapath.adopted,
    changes,
    events,
    kernelOffer: datapath.kernelOffer,
  }),
  measure: () => datapath.measure(),
  strangers: () => datapath.strangers(),
  close: () => datapath.close(),
  async remove() {
    await datapath.close();
    await cleanupDatapath(opened);
  },
  async releaseTun() {
    const { releaseTun } = await import(`${datapathFolder}/kernel/kernel-devices.js`);
    releaseTun('tartan0');
  },
  cleanup: options => cleanupDatapath({ ...options, log }),
};

async function answer(line) {
  const { id, command, argument } = JSON.parse(line);
  try {
    return { id, result: await commands[command](argument) };
  } catch (error) {
    return { id, error: { name: error.name, code: error.code, message: error.message } };
  }
}

const lines = createInterface({ input: process.stdin });
lines.on('line', line => void answer(line).then(reply => process.stdout.write(`${JSON.stringify(reply)}\n`)));
