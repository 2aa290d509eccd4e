/** Opens the tool's ports on the real etcd, the real sockets and this process. */
import { text } from 'node:stream/consumers';
import { readDaemonEnvironment } from '../cli/environment-file.js';
import { createEngineNetwork, readEngine } from '../docker/engine.js';
import { bootClock } from '../lib/clock.js';
import { errnoOf } from '../lib/errors.js';
import { silentLog } from '../lib/log.js';
import { getNetworkText, readTimedLeases, putNetworkText } from '../store/operator.js';
import { openEtcd } from '../store/etcd/etcd-kv.js';
import { Keys } from '../store/keys.js';
import { releaseNode } from '../store/release.js';
import { releaseReservation, reserve } from '../store/reservation.js';
import { withdrawFeatures } from '../store/withdraw-features.js';
import { evidencePort } from './bugreport/evidence.js';
import { readDockerFacts } from './docker-facts.js';
import { readDoctorFacts } from './doctor-facts.js';
import { fixOwn } from './doctor-fix.js';
import { openEcho } from './echo.js';
import type { TerminalPort, ToolIo, ToolPorts } from './ports.js';
import { readEvents, readSettings, readStatus } from './status-client.js';
import { readWay } from './trace-facts.js';

/** @param host the ports that change this host */
export function openToolPorts(host: Pick<ToolPorts, 'cleanup' | 'withoutForwarding' | 'withoutDaemon'>): ToolPorts {
  return {
    async openStore(options) {
      // The operator sees messages of etcd as the error of the call.
      const kv = openEtcd(options, silentLog);
      const { prefix } = options;
      const context = { kv, keys: new Keys(prefix), clock: bootClock };
      // Each call has a deadline of its own, and Ctrl-C ends the process.
      const { signal } = new AbortController();
      return {
        listLeases: () => readTimedLeases(kv, prefix, { signal }),
        getNetworkText: () => getNetworkText(kv, prefix, { signal }),
        putNetworkText: text => putNetworkText(kv, prefix, text, { signal }),
        reserve: request => reserve(context, request, signal),
        release: (subnet, force) => releaseReservation(context, subnet, force, signal),
        releaseNode: nodeId => releaseNode(context, nodeId, signal),
        withdrawFeatures: nodeId => withdrawFeatures(context, nodeId, signal),
        close: () => kv.close(),
      };
    },
    readStatus,
    readEvents,
    readSettings,
    readEnvironmentFile: () => readDaemonEnvironment(),
    ...host,
    openEcho,
    terminal,
    readWay,
    doctor: { readFacts: readDoctorFacts, fix: fixOwn },
    evidence: evidencePort,
    docker: { readFacts: readDockerFacts, readEngine, createNetwork: createEngineNetwork },
  };
}

export function openProcessIo(ports: ToolPorts): ToolIo {
  // `tartan leases | head -1` closes the pipe early, which is no error.
  process.stdout.on('error', error => {
    if (errnoOf(error) !== 'EPIPE') throw error;
    process.exit(0);
  });
  return {
    env: process.env,
    stdout: words => void process.stdout.write(words),
    stderr: words => void process.stderr.write(words),
    stdin: () => text(process.stdin),
    isTty: process.stdout.isTTY === true,
    ports,
  };
}

/** Resolves when everything is written: process.exit() would drop what a slow reader of a pipe has not taken yet. */
export async function writtenOut(
  streams: readonly NodeJS.WritableStream[] = [process.stdout, process.stderr],
): Promise<void> {
  for (const stream of streams) await new Promise<void>(resolve => void stream.write('', () => resolve()));
}

const terminal: TerminalPort = {
  size: () => ({ rows: process.stdout.rows || 24, columns: process.stdout.columns || 80 }),
  onInterrupt,
};

function onInterrupt(): ReturnType<TerminalPort['onInterrupt']> {
  const stop = new AbortController();
  const names = ['SIGINT', 'SIGTERM'] as const;
  const abort = (): void => stop.abort();
  for (const name of names) process.on(name, abort);
  return {
    signal: stop.signal,
    release: () => {
      for (const name of names) process.off(name, abort);
    },
  };
}
