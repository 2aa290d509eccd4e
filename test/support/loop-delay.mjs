// Preloaded into a daemon (`node --import`): how long its event loop was blocked at most in each quarter of a second,
// one JSON line each in the file that TARTAN_LOOP_DELAY names.
import { appendFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';

const file = process.env.TARTAN_LOOP_DELAY;
const delays = monitorEventLoopDelay({ resolution: 10 });
let begunMs = Date.now();
delays.enable();
setInterval(() => {
  if (file) appendFileSync(file, `${JSON.stringify({ begunMs, maxMs: Math.round(delays.max / 1e6) })}\n`);
  delays.reset();
  begunMs = Date.now();
}, 250).unref();
