/** Opens the tool's ports on the real etcd, the real sockets and this process. */
import { text } from 'node:stream/consumers';
import { readDaemonEnvironment } from '../cli/environment-file.js';
import { errnoOf } from '../lib/errors.js';
import { evidencePort } from './bugreport/evidence.js';
import type { TerminalPort, ToolIo, ToolPorts } from './ports.js';
import { readEvents, readSettings, readStatus } from './status-client.js';

export function openToolPorts(): ToolPorts {
  return {
    // What most commands do not need is loaded by those that do: the client of etcd is half of the program.
    openStore: async options => (await import('./open-store.js')).openStore(options),
    readStatus,
    readEvents,
    readSettings,
    readEnvironmentFile: () => readDaemonEnvironment(),
    cleanup: async request => (await import('./cleanup.js')).cleanUpHost(request),
    withoutForwarding: async (runDir, work) => (await import('./cleanup.js')).withoutForwarding(runDir, work),
    withoutDaemon: async (runDir, work) => (await import('./cleanup.js')).withoutDaemon(runDir, work),
    openEcho: async () => (await import('./echo.js')).openEcho(),
    terminal,
    readWay: async request => (await import('./trace-facts.js')).readWay(request),
    doctor: {
      readFacts: async request => (await import('./doctor-facts.js')).readDoctorFacts(request),
      fix: async facts => (await import('./doctor-fix.js')).fixOwn(facts),
    },
    evidence: evidencePort,
    docker: {
      readFacts: async place => (await import('./docker-facts.js')).readDockerFacts(place),
      readEngine: async path => (await import('../docker/engine.js')).readEngine(path),
      createNetwork: async (path, wanted) => (await import('../docker/engine.js')).createEngineNetwork(path, wanted),
    },
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
