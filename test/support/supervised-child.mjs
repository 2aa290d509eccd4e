/**
 * A long-lived child for the supervisor's test. One word a line on standard input: `work` begins its work, which takes
 * the lock directory named in argv; `ask` is answered by `yes`; `hang` stops answering; `stop` gives the lock back and ends.
 */
import { mkdirSync, rmdirSync } from 'node:fs';
import { createInterface } from 'node:readline';

const [lock] = process.argv.slice(2);
let hangs = false;
let works = false;
const say = word => process.stdout.write(`${word}\n`);
const commands = {
  work() {
    // A second one that works at the same time fails here.
    mkdirSync(lock);
    works = true;
    say('works');
  },
  ask: () => hangs || say('yes'),
  hang: () => (hangs = true),
  stop() {
    if (works) rmdirSync(lock);
    process.exit(0);
  },
};
createInterface({ input: process.stdin }).on('line', line => commands[line]());
say('paused');
