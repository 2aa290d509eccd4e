#!/usr/bin/env node
import { cleanUpHost, withoutForwarding } from './cli/cleanup.js';
import { openProcessIo } from './cli/process-io.js';
import { openToolPorts } from './cli/tool-ports.js';
import { runTool } from './cli/tool.js';

// Not exitCode: a connection attempt that etcd never answers would keep a finished tool alive.
const ports = openToolPorts({ cleanup: cleanUpHost, withoutForwarding });
process.exit(await runTool(process.argv, openProcessIo(ports)));
