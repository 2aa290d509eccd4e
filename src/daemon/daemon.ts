/**
 * The daemon's composition root: it opens every adapter in order, runs the agent, and closes all of them, the newest
 * first. Only it and the tool's root construct adapters.
 */
import { accessSync, constants } from 'node:fs';
import { hostname } from 'node:os';
import type { EventList } from '../admin/events.js';
import { openHealthServer } from '../admin/health-server.js';
import { openStatusListener } from '../admin/status-listener.js';
import { openStatusServer } from '../admin/status-server.js';
import { Agent } from '../agent/agent.js';
import { readHardware } from '../agent/hardware.js';
import { LocalNode, loadNodeId, readBootId } from '../agent/local-node.js';
import { isForwarding, snapshot } from '../agent/snapshot.js';
import { StateFile } from '../agent/state-file.js';
import type { Status } from '../agent/status.js';
import { chooseBackend, tunnelDevice } from '../backend/all.js';
import { openEngines } from '../datapath/kernel/kernel-engine.js';
import { openDockerFiles } from '../docker/settings/docker-files.js';
import { openKernelHost } from '../host/kernel-host.js';
import { openUnderlay } from '../host/underlay/check.js';
import { bootClock } from '../lib/clock.js';
import { messageOf, TartanError } from '../lib/errors.js';
import { native } from '../lib/native.js';
import { Scope } from '../lib/scope.js';
import { defaultNetworkName } from '../model/network.js';
import { readHostName, type Node } from '../model/node.js';
import { openEtcd } from '../store/etcd/etcd-kv.js';
import { openLeaseStore } from '../store/leases.js';
import { openBackOff } from './back-off.js';
import { DaemonLog, sayEarlyFailure } from './daemon-log.js';
import { directoriesOf, openDirectories } from './directories.js';
import { openMetrics } from './metrics-source.js';
import { describeOptions, parseDaemonOptions, type DaemonOptions } from './options.js';
import { daemonSettingsOf } from '../cli/daemon-settings.js';
import { describeHiddenPlace } from '../cli/install-place.js';
import { version } from '../cli/version.js';
import { peerIcmp } from './peer-icmp.js';
import { tidyMemoryLater } from './tidy-memory.js';
import { feedWatchdog } from './watchdog.js';

/** @returns the exit status */
export async function runDaemon(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  let output: DaemonLog | undefined;
  try {
    const invocation = parseDaemonOptions(argv, env);
    if (invocation.kind !== 'run') {
      process.stdout.write(invocation.text);
      return 0;
    }
    output = new DaemonLog(invocation.options.logLevel, invocation.options.logFormat, env);
    output.hearNode();
    await serve(invocation.options, output, env);
    output.flush();
    return 0;
  } catch (error) {
    return output ? output.sayFailure(error) : sayEarlyFailure(error, env);
  }
}

class Stopped extends Error {}

async function serve(options: DaemonOptions, output: DaemonLog, env: NodeJS.ProcessEnv): Promise<void> {
  const { log } = output;
  requirePrivileges();
  log.info('daemon.starting', `tartand ${version}`, { options: describeOptions(options) });
  const place = env['INVOCATION_ID'] === undefined ? describeHiddenPlace() : undefined;
  for (const note of [...options.notes, ...(place === undefined ? [] : [place])]) log.warn('options.note', note);
  const stop = new AbortController();
  const scope = new Scope((name, error) => log.warn('daemon.closing', `${name}: ${messageOf(error)}`));
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => stop.abort(new Stopped(name)));
  const notifySocket = env['NOTIFY_SOCKET'];
  const notify = (state: string): void => {
    if (notifySocket) native().notify(notifySocket, state);
  };
  // The scope owns the watchdog first: a daemon that closes all the rest is alive until the end.
  const onSilent = (error: unknown): void => log.warn('watchdog.failed', messageOf(error));
  scope.defer('watchdog', feedWatchdog(env, notify, onSilent));
  const backOff = openBackOff(directoriesOf(defaultNetworkName, options).runDir, bootClock, log);
  try {
    const agent = await openAgent(options, output, scope, state => {
      if (state.startsWith('READY=1')) {
        backOff.reset();
        scope.defer('memory', tidyMemoryLater());
      }
      notify(state);
    });
    await agent.run(stop.signal);
  } catch (error) {
    if (!(error instanceof Stopped)) {
      await scope.close();
      if (notifySocket) await backOff.wait(error, stop.signal);
      throw error;
    }
    log.info('daemon.stopping', `${error.message}: the data plane goes on`);
    notify('STOPPING=1');
  } finally {
    await scope.close();
  }
}

async function openAgent(
  options: DaemonOptions,
  output: DaemonLog,
  scope: Scope,
  notify: (state: string) => void,
): Promise<Agent> {
  const { log } = output;
  const { runDir, stateDir } = directoriesOf(defaultNetworkName, options);
  scope.defer('lock', openDirectories({ runDir, stateDir }));
  scope.defer('events', output.keepEvents(stateDir));
  const id = options.nodeId ?? loadNodeId(options.stateDir);
  const host = await scope.own('host', openKernelHost({ log }));
  const underlay = openUnderlay(host, options, log);
  const node = new LocalNode(identityOf(id), await underlay.choose());
  const datapath = await scope.own('datapath', openEngines({ runDir, device: tunnelDevice, log }));
  const kv = openEtcd(options.etcd, log);
  const store = await scope.own(
    'store',
    openLeaseStore(kv, {
      prefix: options.etcd.prefix,
      log,
      clock: bootClock,
      reuseQuarantined: options.reuseQuarantined,
    }),
  );
  const agent = new Agent(
    {
      store,
      host,
      openIcmp: peerIcmp(log),
      underlay,
      node,
      datapath,
      docker: openDockerFiles(options),
      state: new StateFile(stateDir, [options.subnetFile, options.dockerEnvFile]),
      clock: bootClock,
      wallNow: Date.now,
      log,
      notify,
    },
    {
      ...options,
      chooseBackend,
      networkName: defaultNetworkName,
      ttlSeconds: options.leaseTtlSeconds,
      resyncMs: options.resyncSeconds * 1000,
      peerHoldMs: options.peerHoldSeconds * 1000,
    },
  );
  await openListeners(agent, options, output, scope);
  return agent;
}

async function openListeners(agent: Agent, options: DaemonOptions, output: DaemonLog, scope: Scope): Promise<void> {
  const { log, events } = output;
  const { runDir } = directoriesOf(defaultNetworkName, options);
  const eventsAfter = (id: number): EventList => events.listAfter(id);
  const status = (): Status => snapshot(agent, version);
  const settings = daemonSettingsOf(options.etcd, options.etcdPasswordFile);
  await scope.own('status socket', openStatusServer({ runDir, status, eventsAfter, settings, log }));
  if (options.statusListen)
    await scope.own('status listener', openStatusListener({ ...options.statusListen, status, eventsAfter, log }));
  if (options.healthz) {
    const metrics = options.metrics && (await openMetrics(options.metrics.peers, status));
    const health = { ...options.healthz, ...(metrics && { metrics }), forwarding: () => isForwarding(agent), log };
    await scope.own('health', openHealthServer(health));
  }
}

function identityOf(id: string): Pick<Node, 'id' | 'bootId' | 'hardware' | 'hostName'> {
  return { id, bootId: readBootId(), hardware: readHardware(), hostName: readHostName(hostname()) };
}

const neededCapabilities = ['CAP_NET_ADMIN', 'CAP_SETUID', 'CAP_SETGID'] as const;

function requirePrivileges(): void {
  const missing = neededCapabilities.filter(name => !native().hasCapability(name));
  if (missing.length > 0)
    throw new TartanError(
      'PERMISSION',
      `tartand lacks ${missing.join(', ')}: start it as root or grant these capabilities`,
    );
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK);
  } catch (cause) {
    throw new TartanError(
      'PERMISSION',
      '/dev/net/tun is missing or not accessible: load the tun module (modprobe tun) and allow the device',
      { cause },
    );
  }
}
