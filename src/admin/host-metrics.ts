/** Metrics of this host but for packets and peers: build, lease, etcd, passes, data process, Docker, the daemon itself. */
import type { KernelEngineStatus, Status } from '../agent/status.js';
import { counter, countOf, gauge, info, labelText, perValue, type MetricFamily } from './metric-family.js';

/** Of the daemon's own process. */
export interface ProcessUsage {
  readonly cpuSeconds: number;
  readonly residentBytes: number;
  readonly openDescriptors: number;
  /** Seconds since 1970. */
  readonly startedSeconds: number;
}

/** An etcd that has been silent for longer is down: the daemon asks each 25 s. */
const etcdSilentSeconds = 60;

export function hostFamilies(status: Status, nowSeconds: number, usage: ProcessUsage): readonly MetricFamily[] {
  return [
    ...stateFamilies(status),
    ...leaseFamilies(status, nowSeconds),
    ...etcdFamilies(status, nowSeconds),
    ...passFamilies(status),
    ...dataProcessFamilies(status),
    ...processFamilies(usage),
  ];
}

const phases = [
  'starting',
  'waiting-for-network',
  'waiting-for-lease',
  'configuring',
  'ready',
  'lost',
  'stopping',
] as const;

function stateFamilies({ version, node, lease, network, backend, ...status }: Status): readonly MetricFamily[] {
  const { interface: underlay, docker } = status;
  return [
    info('tartan_build_info', 'Version of tartand, the value is 1.', { version }),
    info('tartan_node_info', 'Who this host is in the network, the value is 1.', {
      node: node.id,
      public_ip: node.publicIp,
      subnet: lease?.subnet ?? null,
      network,
      backend: backend?.type ?? null,
    }),
    gauge('tartan_ready', 'Whether the host works as promised.', status.ready),
    perValue('tartan_phase', 'How far the daemon is: 1 for its phase.', 'phase', countOf(phases, [status.phase])),
    gauge('tartan_healthy', 'Whether health is ok, not impaired.', status.problems.length === 0),
    gauge('tartan_problems', 'What the daemon waits for or suffers from, see tartan status.', status.problems.length),
    gauge('tartan_leases_rejected', 'Lease entries in etcd that were refused.', status.rejected.length),
    gauge('tartan_interface_mtu_bytes', 'MTU of the interface that carries the tunnel.', underlay?.mtu),
    gauge('tartan_tunnel_mtu_bytes', 'MTU of the overlay: the longest inner packet.', docker?.mtu),
    gauge('tartan_docker_in_sync', 'Whether Docker can use its settings.', docker && docker.conflicts.length === 0),
    gauge('tartan_docker_conflicts', 'Settings that keep Docker from using ours.', docker?.conflicts.length),
  ];
}

const leaseStates = ['held', 'unknown', 'gone', 'lost', 'none'] as const;

function leaseFamilies({ lease }: Status, nowSeconds: number): readonly MetricFamily[] {
  const left = lease?.deadlineSeconds ?? null;
  const states = countOf(leaseStates, [lease?.state ?? 'none']);
  return [
    perValue('tartan_lease_state', 'State of the own lease: 1 for the one that it is in.', 'state', states),
    gauge(
      'tartan_lease_expiry_timestamp_seconds',
      'When the lease ends without another KeepAlive; absent for a reservation.',
      left === null ? null : nowSeconds + left,
    ),
    gauge('tartan_lease_ttl_seconds', 'What each KeepAlive sets the life of the lease to.', lease?.ttlSeconds),
    counter(
      'tartan_lease_renew_failures_total',
      'Renewals and repairs of the lease that etcd did not do.',
      lease?.renewFailures,
    ),
  ];
}

const endpointStates = ['answers', 'silent', 'refused', 'unknown'] as const;

function etcdFamilies({ store }: Status, nowSeconds: number): readonly MetricFamily[] {
  if (!store) return [];
  const { answeredSeconds, watchSeconds, refused, endpoints } = store;
  const isLeft = endpoints.length === 0 || endpoints.some(({ state }) => state === 'answers' || state === 'unknown');
  const answers = isLeft && answeredSeconds !== null && answeredSeconds <= etcdSilentSeconds;
  const since = (seconds: number | null): number | null => (seconds === null ? null : nowSeconds - seconds);
  const states = countOf(
    endpointStates,
    endpoints.map(({ state }) => state),
  );
  return [
    gauge(
      'tartan_etcd_up',
      `Whether etcd has answered in the last ${etcdSilentSeconds} s, refuses nothing, and an endpoint is not silent.`,
      answers && refused === null,
    ),
    gauge('tartan_etcd_refused', 'Whether etcd refuses this host, or its role a key.', refused !== null),
    gauge('tartan_etcd_last_answer_timestamp_seconds', 'When etcd answered last.', since(answeredSeconds)),
    gauge('tartan_etcd_watch_start_timestamp_seconds', 'When the watch of the leases began.', since(watchSeconds)),
    perValue('tartan_etcd_endpoints', 'Endpoints of etcd by what they do.', 'state', states),
  ];
}

function passFamilies({ passes }: Status): readonly MetricFamily[] {
  if (!passes) return [];
  const { total, failed, changed, totalMs, lastMs } = passes;
  return [
    {
      name: 'tartan_passes_total',
      help: 'Runs over the host, by result.',
      kind: 'counter',
      samples: [
        { labels: { result: 'ok' }, value: total - failed },
        { labels: { result: 'failed' }, value: failed },
      ],
    },
    counter('tartan_passes_changed_total', 'Passes that found the host other than planned.', changed),
    counter('tartan_passes_duration_seconds_total', 'What all passes took.', totalMs / 1000),
    gauge('tartan_pass_last_duration_seconds', 'What the last pass took.', lastMs === null ? null : lastMs / 1000),
  ];
}

function dataProcessFamilies({ datapath }: Status): readonly MetricFamily[] {
  if (!datapath) return [];
  const { engine, pid, threads, generationPublished, generationAdopted, respawns, handovers, warnings, kernel } =
    datapath;
  const features = datapath.features.map(feature => ({ labels: { feature: labelText(feature) }, value: 1 }));
  return [
    info('tartan_datapath_info', 'What carries packets, the value is 1.', { engine }),
    gauge('tartan_datapath_up', 'Whether a data process runs.', pid !== null),
    gauge('tartan_datapath_threads', 'Threads of the data process.', threads),
    gauge(
      'tartan_datapath_generations_behind',
      'Published tables that a thread has not taken yet.',
      generationPublished - generationAdopted,
    ),
    {
      name: 'tartan_datapath_feature_info',
      help: 'Offloads of the kernel that are in use, each with the value 1.',
      kind: 'gauge',
      samples: features,
    },
    gauge('tartan_datapath_warnings', 'What the kernel gave less of than requested.', warnings.length),
    counter('tartan_datapath_respawns_total', 'Data processes started for one that died or hung.', respawns),
    counter('tartan_datapath_handovers_total', 'Data processes that took over from a running one.', handovers),
    ...(kernel ? kernelFamilies(kernel) : []),
  ];
}

const kernelStates = ['off', 'on', 'unavailable'] as const;

function kernelFamilies({ wanted, state, reason, peers }: KernelEngineStatus): readonly MetricFamily[] {
  return [
    info('tartan_kernel_engine_info', 'What is asked for, and why it is not on; the value is 1.', {
      wanted,
      state,
      reason,
    }),
    perValue('tartan_kernel_engine', 'Engine kernel: 1 for its state.', 'state', countOf(kernelStates, [state])),
    gauge('tartan_kernel_engine_peers', 'Peers whose packets go by the engine kernel.', peers),
  ];
}

/** With the names that every client library gives them. */
function processFamilies(usage: ProcessUsage): readonly MetricFamily[] {
  return [
    counter('process_cpu_seconds_total', 'Processor time of tartand, user and system.', usage.cpuSeconds),
    gauge('process_resident_memory_bytes', 'Memory of tartand in use.', usage.residentBytes),
    gauge('process_open_fds', 'Open descriptors of tartand.', usage.openDescriptors),
    gauge('process_start_time_seconds', 'When tartand was started.', usage.startedSeconds),
  ];
}
