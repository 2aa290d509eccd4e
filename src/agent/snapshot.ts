/** Builds the Status document from the state of the agent. */
import { dirname } from 'node:path';
import { quarantineTtls } from '../model/allocation.js';
import type { DatapathStats } from '../datapath/datapath.js';
import { formatBridgeAddress, formatIpv4, formatPrefix } from '../model/ip.js';
import { divideLease } from '../model/lease-parts.js';
import type { Lease } from '../model/lease.js';
import type { Agent } from './agent.js';
import { apiVersion, type PlacedProblem, type Status, type StatusDatapath } from './status.js';
import type { PeerWatched, StatusDocker, StatusStore } from './status.js';
import { summarize, type SummaryFacts } from './summary.js';

/** The store gives the keys of refused entries as printable ASCII, of any length. */
const maxKeyLength = 200;

export function snapshot(agent: Agent, version: string): Status {
  const node = agent.ports.node.current;
  const { ownLease, network, backend } = agent;
  const stats = agent.hasTunnel ? agent.ports.datapath.stats() : undefined;
  const placedProblems = problemsOf(agent);
  const problems = placedProblems.map(({ text }) => text);
  return {
    apiVersion,
    kind: 'Status',
    version,
    summary: summarize(factsOf(agent, problems)),
    phase: agent.phase,
    ready: isReady(agent),
    problems,
    placedProblems,
    health: { state: problems.length === 0 ? 'ok' : 'impaired', reasons: problems },
    node: { id: node.id, bootId: node.bootId, publicIp: formatIpv4(node.publicIp) },
    lease: ownLease
      ? {
          subnet: formatPrefix(ownLease.lease.subnet),
          state: ownLease.status,
          deadlineSeconds: secondsLeft(ownLease.deadlineMs, agent.ports.clock.now()),
          ttlSeconds: agent.options.ttlSeconds,
          renewFailures: ownLease.renewFailures,
        }
      : null,
    network: network ? formatPrefix(network.network) : null,
    backend: backend && network ? { type: backend.type, port: network.backend.port || null } : null,
    interface: { name: node.interface.name, address: formatIpv4(node.interface.address), mtu: node.interface.mtu },
    docker: dockerOf(agent),
    peers: agent.peers.shown.map(({ lease, state, secondsLeft }) => ({
      subnet: formatPrefix(lease.subnet),
      publicIp: formatIpv4(lease.publicIp),
      nodeId: lease.nodeId ?? null,
      state,
      secondsLeft,
      hostName: lease.hostName ?? null,
      backend: lease.backend.type,
      watched: watchedOf(agent, lease),
    })),
    rejected: agent.peers.rejected.map(({ key, reason }) => ({ key: key.slice(0, maxKeyLength), reason })),
    datapath: stats ? datapathOf(stats, agent) : null,
    store: storeOf(agent),
    passes: { ...agent.reconciler.passes },
    daemon: {
      pid: process.pid,
      clockSetSeconds: agent.clockSetSeconds,
      stateDir: dirname(agent.ports.state.path),
      subnetFile: agent.options.subnetFile,
    },
  };
}

function watchedOf({ watch, engine }: Agent, lease: Lease): PeerWatched | null {
  const watched = watch.describe(lease);
  if (!watched || watched.engine === 'kernel') return watched;
  return { ...watched, engineReason: engine.whyUser(lease.features, watched.engineReason) };
}

export function summaryLine(agent: Agent, ages: 'exact' | 'coarse'): string {
  const problems = problemsOf(agent).map(({ text }) => text);
  return summarize(factsOf(agent, problems), ages);
}

/** Whether the agent works as promised. A lease that etcd did not confirm for its whole TTL is not enough. */
export function isReady(agent: Agent): boolean {
  const asPlanned = agent.ownLease?.status === 'held' && agent.reconciler.failures < 3;
  return agent.phase === 'ready' && asPlanned && !lacksProcess(agent);
}

function lacksProcess({ hasTunnel, ports }: Agent): boolean {
  return hasTunnel && ports.datapath.pid === undefined;
}

/**
 * Whether this host carries traffic, also on a saved lease: no prober must restart a host because etcd is away. A
 * running daemon moves the deadline of the data plane ahead, a fence is a lost lease.
 */
export function isForwarding(agent: Agent): boolean {
  if (agent.phase !== 'ready' || agent.ownLease?.status === 'lost') return false;
  const { datapath, clock } = agent.ports;
  return !agent.hasTunnel || (datapath.pid !== undefined && clock.now() < datapath.forwardUntilMs);
}

function factsOf(agent: Agent, problems: readonly string[]): SummaryFacts {
  const { phase, peers, ports } = agent;
  return {
    phase,
    ready: isReady(agent),
    problems,
    peers: { total: peers.current.length, states: agent.watch.states },
    answeredSeconds: secondsSince(ports.store.signs.answeredMs, ports.clock.now()),
  };
}

function storeOf({ ports }: Agent): StatusStore {
  const { answeredMs, watchSinceMs, refused = null, endpoints } = ports.store.signs;
  const nowMs = ports.clock.now();
  return {
    answeredSeconds: secondsSince(answeredMs, nowMs),
    watchSeconds: secondsSince(watchSinceMs, nowMs),
    refused,
    endpoints,
  };
}

function secondsSince(ms: number | undefined, nowMs: number): number | null {
  return ms === undefined ? null : Math.max(0, Math.round((nowMs - ms) / 1000));
}

function problemsOf(agent: Agent): readonly PlacedProblem[] {
  const lease = agent.ownLease && agent.ownLease.status !== 'held' ? [`the lease is ${agent.ownLease.status}`] : [];
  const saved = agent.unconfirmed
    ? [
        `network, subnet and peers are those of the state file${agent.problem === undefined ? ', etcd has not answered' : ''}`,
      ]
    : [];
  const forgone = isForgone(agent)
    ? [`the subnet may be another's: its quarantine ended without an answer of etcd`]
    : [];
  const stopped = agent.phase === 'ready' && lacksProcess(agent);
  const process = stopped ? ['no data process runs: packets of the overlay are not carried'] : [];
  const places: readonly (readonly [PlacedProblem['place'], readonly (string | undefined)[]])[] = [
    [agent.problemPlace, [agent.problem]],
    ['underlay', [agent.underlayProblem]],
    ['store', agent.ports.store.problems],
    ['lease', [...lease, ...forgone, ...saved]],
    ['data-plane', [...process, ...(agent.hasTunnel ? agent.ports.datapath.problems : [])]],
    ['peers', [...agent.watch.problems, ...agent.peers.problems]],
    ['host', agent.reconciler.problems],
    ['docker', agent.dockerProblems],
  ];
  const byText = new Map<string, PlacedProblem>();
  for (const [place, texts] of places)
    for (const text of texts) if (text !== undefined && !byText.has(text)) byText.set(text, { place, text });
  return [...byText.values()];
}

/** Whether the quarantine that protects the subnet is over, as after weeks without etcd; its use goes on. */
function isForgone({ ownLease, options, ports }: Agent): boolean {
  if (ownLease?.status !== 'unknown' || ownLease.deadlineMs === Infinity) return false;
  return ports.clock.now() >= ownLease.renewedAtMs + quarantineTtls * options.ttlSeconds * 1000;
}

function datapathOf(stats: DatapathStats, { watch, engine: engines }: Agent): StatusDatapath {
  const strangers = watch.warnings;
  const { engine, pid = null, threads, generationPublished, generationAdopted } = stats;
  const { counters, respawns, handovers, features } = stats;
  const warnings = [...stats.warnings, ...strangers];
  const warningKinds = [...stats.warningKinds, ...strangers.map(() => 'stranger' as const)];
  const process = { engine, pid, threads, generationPublished, generationAdopted };
  const kernel = engines.describe(stats.kernel);
  return { ...process, counters, respawns, handovers, features, warnings, warningKinds, kernel };
}

function secondsLeft(deadlineMs: number, nowMs: number): number | null {
  return deadlineMs === Infinity ? null : Math.round((deadlineMs - nowMs) / 1000);
}

function dockerOf({ ownLease, backend, options, dockerProblems }: Agent): StatusDocker | null {
  if (!ownLease || !backend) return null;
  const { bridge, pools } = divideLease(ownLease.lease.subnet, options.docker);
  return {
    bip: formatBridgeAddress(bridge),
    pools: pools.map(({ base, size }) => ({ base: formatPrefix(base), size })),
    mtu: backend.mtu,
    masquerade: options.ipMasquerade !== 'off',
    forward: options.forwardRules,
    config: options.docker.config,
    envFile: options.dockerEnvFile,
    daemonJsonFile: options.docker.daemonJsonFile,
    conflicts: dockerProblems,
  };
}
