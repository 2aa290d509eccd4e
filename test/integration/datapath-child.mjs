/**
 * The datapath in a process of its own, so that a test can run it in a network namespace and kill it like a daemon.
 * One JSON command a line on standard input, one answer a line on standard output.
 */
import { createInterface } from 'node:readline';

// Of the tree named by the caller, which may be another version.
const dist = `${process.argv[2]}/dist`;
const { cleanupDatapath } = await import(`${dist}/datapath/tun/cleanup.js`);
const { openDatapath } = await import(`${dist}/datapath/tun/tun-engine.js`);

const events = [];
const note = (event, message) => events.push(`${event}: ${message}`);
const log = { debug: note, info: note, warn: note, error: note };
let datapath;
let opened;
let changes = 0;

const commands = {
  async open(options) {
    opened = { ...options, log };
    datapath = await openDatapath(opened);
    datapath.onChange(() => changes++);
    return { adopted: datapath.adopted };
  },
  start: config => datapath.start(config),
  stop: () => datapath.stop(),
  publish: routes => datapath.publish(routes),
  forwardUntil: bootMs => datapath.forwardUntil(bootMs),
  fence: lost => datapath.fence(lost),
  check: () => datapath.check(),
  state: () => ({ ...datapath.stats(), adopted: datapath.adopted, changes, events }),
  close: () => datapath.close(),
  async remove() {
    await datapath.close();
    await cleanupDatapath(opened);
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
