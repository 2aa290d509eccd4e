#!/usr/bin/env node
import { runDaemon } from './daemon/daemon.js';

// Not exitCode: a handle that some library forgot must not keep a stopped daemon alive.
process.exit(await runDaemon(process.argv.slice(2), process.env));
