#!/usr/bin/env node
import { cleanUpHost } from './cli/cleanup.js';
import { openProcessIo } from './cli/process-io.js';
import { openToolPorts } from './cli/tool-ports.js';
import { runTool } from './cli/tool.js';

// Not exitCode: a connection attempt that etcd never answers would keep a finished tool alive.
process.exit(await runTool(process.argv, openProcessIo(openToolPorts(cleanUpHost))));
