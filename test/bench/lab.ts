/**
 * Two hosts for one contender, each a network namespace, joined by a veth; in the topology `container` each with a
 * container behind a bridge, routing, Docker's rules and connection tracking. Names carry the number of the bench.
 *
 *   [ac] eth0 10.5.1.2 - [a] br0 10.5.1.1 ~ overlay ~ under 192.0.2.1 --- 192.0.2.2 under [b] ... [bc]
 */
import { existsSync } from 'node:fs';
import { dockerRules } from './docker-rules.js';
import { ends } from './machine.js';
import { program, run } from './process.js';

export const topologies = ['host', 'container'] as const;
export type Topology = (typeof topologies)[number];

/** What crosses between the hosts: super-packets, frames of the MTU only, the same without checksum offload. */
export const underlays = ['whole', 'wire', 'nocsum'] as const;
export type Underlay = (typeof underlays)[number];

export const sides = ['a', 'b'] as const;
export type Side = (typeof sides)[number];

export const link = 'under';
export const network = '10.5.0.0/16';
export const address: Readonly<Record<Side, string>> = { a: '192.0.2.1', b: '192.0.2.2' };
export const peerOf: Readonly<Record<Side, Side>> = { a: 'b', b: 'a' };

const bridge = 'br0';

/** A network card takes frames of the MTU, and its driver merges again what arrives (GRO). */
const cardOffloads = ['rx-gro=on', 'tx-*segmentation=off', 'tx-gso-*=off'];
export const offloads: Readonly<Record<Underlay, readonly string[]>> = {
  whole: [],
  wire: cardOffloads,
  nocsum: [...cardOffloads, 'tx-checksum-*=off'],
};

/** The subnet's address with another last octet. */
export function addressIn(subnet: string, last: number): string {
  const [base = ''] = subnet.split('/');
  return [...base.split('.').slice(0, 3), last].join('.');
}

export class Lab {
  readonly #name: string;
  readonly topology: Topology;

  private constructor(name: string, topology: Topology) {
    this.#name = `tb${process.env['BENCH_ID'] ?? process.pid}${name}`;
    this.topology = topology;
  }

  static async open(name: string, underlay: Underlay, topology: Topology): Promise<Lab> {
    const lab = new Lab(name, topology);
    for (const side of sides) await lab.#add(lab.#host(side));
    const peer = ['peer', 'name', link, 'netns', lab.#host('b')];
    await lab.ip('a', 'link', 'add', link, 'type', 'veth', ...peer);
    for (const side of sides) {
      await lab.ip(side, 'address', 'add', `${address[side]}/24`, 'dev', link);
      if (offloads[underlay].length > 0) await lab.run(side, [program('offload'), link, ...offloads[underlay]]);
      await lab.ip(side, 'link', 'set', link, 'up');
    }
    return lab;
  }

  /** The command as it runs on a host. */
  on(side: Side, command: readonly string[]): readonly string[] {
    return inside(this.#host(side), command);
  }

  /** The command as it runs where the traffic begins and ends, on the processor of that end or on another one. */
  at(side: Side, command: readonly string[], processor = ends[side]): readonly string[] {
    return this.#atEnd(side, ['taskset', '-c', String(processor), ...command]);
  }

  #atEnd(side: Side, command: readonly string[]): readonly string[] {
    return inside(this.topology === 'container' ? `${this.#host(side)}c` : this.#host(side), command);
  }

  run(side: Side, command: readonly string[], input = ''): Promise<string> {
    return run(this.on(side, command), { input });
  }

  async ip(side: Side, ...args: readonly string[]): Promise<void> {
    await run(['ip', '-n', this.#host(side), ...args]);
  }

  /** What runs on a host. */
  async pids(side: Side): Promise<readonly number[]> {
    return (await run(['ip', 'netns', 'pids', this.#host(side)])).split('\n').filter(Boolean).map(Number);
  }

  /** A container on each host, addressed as Docker does it when it is given the subnet and the MTU. */
  async addContainers(subnets: Readonly<Record<Side, string>>, mtu: number): Promise<void> {
    for (const side of sides) {
      const inner = `${this.#host(side)}c`;
      const subnet = subnets[side];
      const gateway = addressIn(subnet, 1);
      await this.#add(inner);
      await this.ip(side, 'link', 'add', bridge, 'mtu', String(mtu), 'type', 'bridge');
      await this.ip(side, 'address', 'add', `${gateway}/24`, 'dev', bridge);
      const peer = ['peer', 'name', 'eth0', 'mtu', String(mtu), 'netns', inner];
      await this.ip(side, 'link', 'add', 'ct0', 'mtu', String(mtu), 'type', 'veth', ...peer);
      await this.ip(side, 'link', 'set', 'ct0', 'master', bridge, 'up');
      await this.ip(side, 'link', 'set', bridge, 'up');
      await run(['ip', '-n', inner, 'address', 'add', `${addressIn(subnet, 2)}/24`, 'dev', 'eth0']);
      await run(['ip', '-n', inner, 'link', 'set', 'eth0', 'up']);
      await run(['ip', '-n', inner, 'route', 'add', 'default', 'via', gateway]);
      await this.#setting(this.#host(side), 'net/ipv4/ip_forward');
      await this.#setting(this.#host(side), 'net/bridge/bridge-nf-call-iptables');
      await this.run(side, ['iptables-restore'], dockerRules({ bridge, network, subnet }));
    }
  }

  /** Ends what runs in it, by pid, and removes it. */
  async close(): Promise<void> {
    for (const name of sides.flatMap(side => [this.#host(side), `${this.#host(side)}c`])) {
      if (!existsSync(`/run/netns/${name}`)) continue;
      const pids = (await run(['ip', 'netns', 'pids', name])).split('\n').filter(Boolean).map(Number);
      for (const pid of pids) kill(pid);
      await run(['ip', 'netns', 'delete', name]);
    }
  }

  #host(side: Side): string {
    return `${this.#name}${side}`;
  }

  async #add(name: string): Promise<void> {
    await run(['ip', 'netns', 'add', name]);
    await run(['ip', '-n', name, 'link', 'set', 'lo', 'up']);
    // What one round learnt about a path must not shape the next.
    await this.#setting(name, 'net/ipv4/tcp_no_metrics_save');
  }

  /** Switches it on, where this kernel has it. */
  async #setting(name: string, path: string): Promise<void> {
    await run(inside(name, ['sh', '-c', '[ ! -e "$1" ] || echo 1 > "$1"', 'sh', `/proc/sys/${path}`]));
  }
}

function inside(name: string, command: readonly string[]): readonly string[] {
  return ['nsenter', `--net=/run/netns/${name}`, '--', ...command];
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Ended by itself meanwhile.
  }
}
