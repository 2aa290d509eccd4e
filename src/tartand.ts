#!/usr/bin/env node
import { refuseNode } from './cli/node-floor.js';

// What a library uses that Node.js will drop is nothing that an operator can change.
process.noDeprecation = true;
const refusal = refuseNode();
if (refusal !== undefined) {
  process.stderr.write(`tartand: ${refusal}\n`);
  process.exit(78);
}
// Scripts ask for it often, and it needs nothing of the rest.
if (process.argv.length === 3 && process.argv[2] === '--version') {
  const { version } = await import('./cli/version.js');
  process.stdout.write(`${version}\n`);
  process.exit(0);
}
const { runDaemon } = await import('./daemon/daemon.js');
// Not exitCode: a handle that some library forgot must not keep a stopped daemon alive.
process.exit(await runDaemon(process.argv.slice(2), process.env));
