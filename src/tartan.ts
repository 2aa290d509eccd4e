#!/usr/bin/env node
import { refuseNode } from './cli/node-floor.js';

const refusal = refuseNode();
if (refusal !== undefined) {
  process.stderr.write(`error: ${refusal}\n`);
  process.exit(1);
}
const { cleanUpHost, withoutDaemon, withoutForwarding } = await import('./tool/cleanup.js');
const { openProcessIo, openToolPorts, writtenOut } = await import('./tool/open-ports.js');
const { runTool } = await import('./tool/tool.js');
// Not exitCode: a connection attempt that etcd never answers would keep a finished tool alive.
const ports = openToolPorts({ cleanup: cleanUpHost, withoutForwarding, withoutDaemon });
const status = await runTool(process.argv, openProcessIo(ports));
await writtenOut();
process.exit(status);
