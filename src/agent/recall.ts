/** What this host knows of itself before the store answers: subnets to ask for, and a memory to stand on. */
import { messageOf } from '../lib/errors.js';
import type { Clock } from '../lib/clock.js';
import type { Log } from '../lib/log.js';
import type { Datapath } from '../datapath/datapath.js';
import type { DockerFiles } from '../docker/docker.js';
import type { NetworkConfig } from '../model/network.js';
import type { Node } from '../model/node.js';
import type { PreviousSubnet } from '../store/store.js';
import { refuseMemory, type Memory } from './memory.js';
import type { StateFile } from './state-file.js';

export interface RecallPorts {
  readonly state: StateFile;
  readonly docker: DockerFiles;
  readonly datapath: Datapath;
  readonly clock: Clock;
  readonly wallNow: () => number;
  readonly log: Log;
}

export interface Recalled {
  /** State file first, then (by the store) our own entry in etcd, then `subnet.env`. */
  readonly previous: readonly PreviousSubnet[];
  /** Undefined when there is none, or none that may be used here and now. */
  readonly memory: Memory | undefined;
}

/** @param refuseNetwork throws for a network that this host cannot run */
export function recall(ports: RecallPorts, node: Node, refuseNetwork: (network: NetworkConfig) => void): Recalled {
  const read = ports.state.read(node.id);
  if (read.kind === 'refused') ports.log.warn('state.refused', `${read.reason}; it is not used`);
  const fromEnv = ports.docker.previousSubnet();
  const previous: readonly PreviousSubnet[] = [
    ...(read.kind === 'found' ? [{ subnet: read.state.subnet, source: 'state' as const }] : []),
    ...(fromEnv ? [{ subnet: fromEnv, source: 'subnet-env' as const }] : []),
  ];
  const memory = read.kind === 'found' ? read.state.memory : undefined;
  if (!memory) return { previous, memory };
  const reason = refusal(memory, ports, node, refuseNetwork);
  if (reason === undefined) return { previous, memory };
  ports.log.warn('state.refused', `${ports.state.path} ${reason}; only its subnet is asked for again`);
  return { previous, memory: undefined };
}

function refusal(
  memory: Memory,
  { clock, wallNow, datapath }: RecallPorts,
  node: Node,
  refuseNetwork: (network: NetworkConfig) => void,
): string | undefined {
  const forwardUntilMs = datapath.adopted ? datapath.forwardUntilMs : 0;
  const reason = refuseMemory(memory, { node, nowMs: clock.now(), wallNowMs: wallNow(), forwardUntilMs });
  if (reason !== undefined) return reason;
  try {
    refuseNetwork(memory.network);
    return undefined;
  } catch (error) {
    return `has a network that cannot be used here: ${messageOf(error)}`;
  }
}
