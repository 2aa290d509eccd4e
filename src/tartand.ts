#!/usr/bin/env node
import { begin } from './cli/begin.js';

await begin('tartand', 78);
const { runDaemon } = await import('./daemon/daemon.js');
// Not exitCode: a handle that some library forgot must not keep a stopped daemon alive.
process.exit(await runDaemon(process.argv.slice(2), process.env));
