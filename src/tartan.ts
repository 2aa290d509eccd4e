#!/usr/bin/env node
import { refuseNode } from './cli/node-floor.js';

// What a library uses that Node.js will drop is nothing that an operator can change.
process.noDeprecation = true;
const refusal = refuseNode();
if (refusal !== undefined) {
  process.stderr.write(`error: ${refusal}\n`);
  process.exit(1);
}
// Scripts ask for it often, and it needs nothing of the rest.
if (process.argv.length === 3 && process.argv[2] === '--version') {
  const { version } = await import('./cli/version.js');
  process.stdout.write(`${version}\n`);
  process.exit(0);
}
const { openProcessIo, openToolPorts, writtenOut } = await import('./tool/open-ports.js');
const { runTool } = await import('./tool/tool.js');
// Not exitCode: a connection attempt that etcd never answers would keep a finished tool alive.
const status = await runTool(process.argv, openProcessIo(openToolPorts()));
await writtenOut();
process.exit(status);
