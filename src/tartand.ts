#!/usr/bin/env node
import { refuseNode } from './cli/node-floor.js';

const refusal = refuseNode();
if (refusal !== undefined) {
  process.stderr.write(`tartand: ${refusal}\n`);
  process.exit(78);
}
const { runDaemon } = await import('./daemon/daemon.js');
// Not exitCode: a handle that some library forgot must not keep a stopped daemon alive.
process.exit(await runDaemon(process.argv.slice(2), process.env));
