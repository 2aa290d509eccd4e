#!/usr/bin/env node
import { cleanUpHost } from './cli/cleanup.js';
import { openProcessIo } from './cli/process-io.js';
import { openToolPorts } from './cli/tool-ports.js';
import { runTool } from './cli/tool.js';

process.exitCode = await runTool(process.argv, openProcessIo(openToolPorts(cleanUpHost)));
