/** Runs `tartan docker plan` and `verify`, and reads the plan for `network create`. */
import { readTextFile } from '../lib/file.js';
import type { Status } from '../agent/status.js';
import { tunnelDevice } from '../backend/all.js';
import { planFromFiles, type DockerPlan } from '../docker/settings/docker-plan.js';
import { readInterfaceAddress } from '../docker/settings/settings.js';
import { finding, type Finding } from '../docker/verify/finding.js';
import { judgeDocker, sortFindings } from '../docker/verify/judge.js';
import { parsePrefix, shown } from '../model/ip.js';
import { formatPlan, formatReport, planViewOf, reportOf } from './docker-view.js';
import { factValue } from '../lib/fact.js';
import { daemonError, print, type Call } from './commands.js';
import { withoutControls } from './table.js';
import { exitStatus, ToolError, usageError, type ExitStatus } from './error.js';

/** A plan, and whether the running daemon gave it. */
interface PlanReading {
  readonly plan: DockerPlan;
  /** Why the daemon could not be asked; undefined when it gave the plan. */
  readonly reason: string | undefined;
  readonly status: Status | undefined;
}

export async function showDockerPlan(call: Call): Promise<ExitStatus> {
  const { plan, reason } = await readPlan(call);
  print(call, planViewOf(plan), (_, paint) => formatPlan(planViewOf(plan), paint));
  if (reason !== undefined)
    call.io.stderr(withoutControls(`note: tartand cannot be asked (${reason}); this is what it wrote last`) + '\n');
  return exitStatus.ok;
}

/** @param daemonJson undefined: the file that dockerd reads */
export async function verifyDocker(call: Call, daemonJson: string | undefined): Promise<ExitStatus> {
  const { socketPath, note } = dockerSocket(call);
  const { plan, reason, status } = await readPlan(call, daemonJson);
  const underlay = status?.interface?.name;
  const facts = await call.io.ports.docker.readFacts({ socketPath, daemonJson, envFile: plan.envFile, underlay });
  const report = reportOf(plan, facts, sortFindings([...judgeDaemon(status, reason), ...judgeDocker(plan, facts)]));
  print(call, report, (_, paint) => formatReport(report, paint));
  if (note !== undefined) call.io.stderr(`note: ${withoutControls(note)}\n`);
  if (reason !== undefined) return exitStatus.daemonUnreachable;
  return report.ok ? exitStatus.ok : exitStatus.checkFailed;
}

function judgeDaemon(status: Status | undefined, reason: string | undefined): readonly Finding[] {
  if (reason !== undefined)
    return [
      finding('error', 'daemon-away', [
        `tartand cannot be asked: ${reason}; what follows is judged by the files that it wrote last`,
        'a running tartand',
        'systemctl start tartand',
      ]),
    ];
  if (!status || status.ready) return [];
  const problems = status.problems.join('; ') || `it is in the phase ${status.phase}`;
  return [
    finding('error', 'daemon-not-ready', [`tartand is not ready: ${problems}`, 'a ready tartand', 'tartan status']),
  ];
}

/** @throws ToolError when neither the daemon nor its files name the settings for Docker */
export async function readPlan(call: Call, daemonJson?: string): Promise<PlanReading> {
  const { runDir, dockerEnvFile, subnetFile } = call.settings;
  const reading = await call.io.ports.readStatus(runDir);
  if (reading.kind === 'status') return { plan: planOf(reading.status), reason: undefined, status: reading.status };
  const daemonJsonFile = daemonJson ?? '/etc/docker/daemon.json';
  const read = (path: string): string => factValue(readTextFile(path)) ?? '';
  const texts = { subnetEnv: read(subnetFile), dockerEnv: read(dockerEnvFile), daemonJson: read(daemonJsonFile) };
  const plan = planFromFiles(texts, { envFile: dockerEnvFile, daemonJsonFile, device: tunnelDevice });
  if (!plan) throw daemonError(`${reading.reason}, and ${subnetFile} and ${dockerEnvFile} do not say what it leased`);
  return { plan, reason: reading.reason, status: undefined };
}

/** @throws ToolError before the daemon has a lease */
function planOf(status: Status): DockerPlan {
  const { docker, lease, network, phase } = status;
  if (!docker || !lease || network === null)
    throw new ToolError(
      exitStatus.checkFailed,
      `tartand has no subnet for Docker yet: it is in the phase ${phase}`,
      'see what it waits for: tartan status',
    );
  const leased = parsePrefix(lease.subnet);
  const { bip, pools, ...share } = docker;
  return {
    ...share,
    source: 'daemon',
    network: parsePrefix(network),
    lease: leased,
    bridge: readInterfaceAddress(bip) ?? leased,
    pools: pools.map(({ base, size }) => ({ base: parsePrefix(base), size })),
    device: tunnelDevice,
    peers: status.peers.map(peer => ({ subnet: parsePrefix(peer.subnet), name: peer.nodeId ?? peer.publicIp })),
  };
}

const defaultSocket = '/var/run/docker.sock';

/** Finds the socket by --docker-host, else by DOCKER_HOST where it names a socket of this host. */
export function dockerSocket(call: Call): { readonly socketPath: string; readonly note: string | undefined } {
  const given = call.settings.dockerHost;
  if (given !== undefined) {
    const path = /^unix:\/\/(\/[^\0]+)$/.exec(given)?.[1];
    if (path !== undefined) return { socketPath: path, note: undefined };
    throw usageError(
      `--docker-host '${shown(given)}' is not a socket of this host, expected unix:///var/run/docker.sock`,
    );
  }
  const environment = call.io.env['DOCKER_HOST'] ?? '';
  const path = /^unix:\/\/(\/.+)$/.exec(environment)?.[1];
  if (path !== undefined || environment === '') return { socketPath: path ?? defaultSocket, note: undefined };
  return {
    socketPath: defaultSocket,
    note: `DOCKER_HOST=${shown(environment)} is not a socket of this host: ${defaultSocket} was asked`,
  };
}
