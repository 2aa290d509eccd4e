#!/usr/bin/env node
import { begin } from './cli/begin.js';

await begin('error', 1);
const { openProcessIo, openToolPorts, writtenOut } = await import('./tool/open-ports.js');
const { runTool } = await import('./tool/tool.js');
// Not exitCode: a connection attempt that etcd never answers would keep a finished tool alive.
const status = await runTool(process.argv, openProcessIo(openToolPorts()));
await writtenOut();
process.exit(status);
