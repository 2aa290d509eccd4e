#!/usr/bin/env node
import { cleanUpHost, withoutDaemon, withoutForwarding } from './tool/cleanup.js';
import { openProcessIo, openToolPorts } from './tool/open-ports.js';
import { runTool } from './tool/tool.js';

// Not exitCode: a connection attempt that etcd never answers would keep a finished tool alive.
const ports = openToolPorts({ cleanup: cleanUpHost, withoutForwarding, withoutDaemon });
process.exit(await runTool(process.argv, openProcessIo(ports)));
