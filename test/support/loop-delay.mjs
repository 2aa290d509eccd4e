// Preloaded into a daemon (`node --import`): how long its event loop was blocked at most in each quarter of a second, one
// JSON line each in the file that TARTAN_LOOP_DELAY names. `maxMs` is by the clock; `ownMs` without the time that the
// thread was ready to run and the machine was busy with others (second field of schedstat, proc(5)).
import { appendFileSync, readFileSync } from 'node:fs';

const file = process.env.TARTAN_LOOP_DELAY;
const tickMs = 10;
let begunMs = Date.now();
let last = look();
let [maxMs, ownMs] = [0, 0];

function look() {
  const [, waitedNs] = readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ');
  return { atMs: performance.now(), waitedMs: Number(waitedNs) / 1e6 };
}

function tick() {
  const now = look();
  const lateMs = now.atMs - last.atMs - tickMs;
  maxMs = Math.max(maxMs, lateMs);
  ownMs = Math.max(ownMs, lateMs - (now.waitedMs - last.waitedMs));
  last = now;
}

function write() {
  appendFileSync(file, `${JSON.stringify({ begunMs, maxMs: Math.round(maxMs), ownMs: Math.round(ownMs) })}\n`);
  [maxMs, ownMs] = [0, 0];
  begunMs = Date.now();
}

if (file) {
  setInterval(tick, tickMs).unref();
  setInterval(write, 250).unref();
}
