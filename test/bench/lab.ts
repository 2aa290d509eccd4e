/**
 * The hosts of one contender, each a network namespace: two joined by a veth, or three behind a switch (a bridge in a
 * namespace of its own). In the topology `container` each has two containers behind a bridge, routing, Docker's rules and
 * connection tracking. Names carry the number of the bench.
 *
 *   [ac] eth0 10.5.1.2 - [a] br0 10.5.1.1 ~ overlay ~ under 192.0.2.1 --- 192.0.2.2 under [b] ... [bc]
 *   [an] eth0 10.5.1.3 /
 */
import { existsSync } from 'node:fs';
import { dockerRules } from './docker-rules.js';
import { ends } from './machine.js';
import { program, run } from './process.js';

export const topologies = ['container', 'host'] as const;
export type Topology = (typeof topologies)[number];

/** What crosses between two hosts: super-packets, frames of the MTU only, the same without checksum offload. */
export const directUnderlays = ['whole', 'wire', 'nocsum'] as const;
/** Behind the bridge frames of the MTU only, too. */
export const underlays = [...directUnderlays, 'bridge'] as const;
export type Underlay = (typeof underlays)[number];

/** The hosts; measured traffic goes from a to b, and c is there behind the bridge only. */
const allSides = ['a', 'b', 'c'] as const;
export type Side = (typeof allSides)[number];

export const link = 'under';
export const network = '10.5.0.0/16';
export const address: Readonly<Record<Side, string>> = { a: '192.0.2.1', b: '192.0.2.2', c: '192.0.2.3' };

const bridge = 'br0';
/** To it segments come that no socket asked for, and an answer to each would double the load. */
export const droppedPort = 5303;
/** In the container that receives them. */
const droppingRules = `*raw\n-A PREROUTING -p tcp --dport ${droppedPort} -j DROP\nCOMMIT\n`;

/** A network card takes frames of the MTU, and its driver merges again what arrives (GRO). */
const cardOffloads = ['rx-gro=on', 'tx-*segmentation=off', 'tx-gso-*=off'];
export const offloads: Readonly<Record<Underlay, readonly string[]>> = {
  whole: [],
  wire: cardOffloads,
  nocsum: [...cardOffloads, 'tx-checksum-*=off'],
  bridge: cardOffloads,
};

/** The subnet's address with another last octet. */
export function addressIn(subnet: string, last: number): string {
  const [base = ''] = subnet.split('/');
  return [...base.split('.').slice(0, 3), last].join('.');
}

export class Lab {
  readonly #name: string;
  readonly topology: Topology;
  readonly name: string;
  /** Those that are there. */
  readonly sides: readonly Side[];

  private constructor(name: string, underlay: Underlay, topology: Topology) {
    this.#name = `tb${process.env['BENCH_ID'] ?? process.pid}${name}`;
    this.topology = topology;
    this.name = name;
    this.sides = underlay === 'bridge' ? allSides : ['a', 'b'];
  }

  static async open(name: string, underlay: Underlay, topology: Topology): Promise<Lab> {
    const lab = new Lab(name, underlay, topology);
    for (const side of lab.sides) await lab.#add(lab.#host(side));
    if (underlay === 'bridge') await lab.#addSwitch();
    else await lab.ip('a', 'link', 'add', link, 'type', 'veth', 'peer', 'name', link, 'netns', lab.#host('b'));
    for (const side of lab.sides) {
      await lab.ip(side, 'address', 'add', `${address[side]}/24`, 'dev', link);
      if (offloads[underlay].length > 0) await lab.run(side, [program('offload'), link, ...offloads[underlay]]);
      await lab.ip(side, 'link', 'set', link, 'up');
    }
    return lab;
  }

  /** The hosts that this one has as peers. */
  peersOf(side: Side): readonly Side[] {
    return this.sides.filter(other => other !== side);
  }

  /** The command as it runs on a host. */
  on(side: Side, command: readonly string[]): readonly string[] {
    return inside(this.#host(side), command);
  }

  /** The command as it runs where the traffic begins and ends, on the processor of that end or on another one. */
  at(side: Side, command: readonly string[], processor = ends[side]): readonly string[] {
    const end = this.topology === 'container' ? `${this.#host(side)}c` : this.#host(side);
    return inside(end, ['taskset', '-c', String(processor), ...command]);
  }

  /** The command as it runs in the other container of that host. */
  beside(side: Side, command: readonly string[], processor: number): readonly string[] {
    return inside(`${this.#host(side)}n`, ['taskset', '-c', String(processor), ...command]);
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

  /** Two containers on each host, addressed as Docker does it when it is given the subnet and the MTU. */
  async addContainers(subnets: Readonly<Record<Side, string>>, mtu: number): Promise<void> {
    for (const side of this.sides) {
      const subnet = subnets[side];
      await this.ip(side, 'link', 'add', bridge, 'mtu', String(mtu), 'type', 'bridge');
      await this.ip(side, 'address', 'add', `${addressIn(subnet, 1)}/24`, 'dev', bridge);
      await this.ip(side, 'link', 'set', bridge, 'up');
      await this.#addContainer(side, 'c', addressIn(subnet, 2), mtu);
      await this.#addContainer(side, 'n', addressIn(subnet, 3), mtu);
      await run(this.beside(side, ['iptables-restore'], ends[side]), { input: droppingRules });
      await this.#set(this.#host(side), 'net/ipv4/ip_forward', 1);
      await this.#set(this.#host(side), 'net/bridge/bridge-nf-call-iptables', 1);
      await this.run(side, ['iptables-restore'], dockerRules({ bridge, network, subnet }));
    }
  }

  async #addContainer(side: Side, letter: 'c' | 'n', own: string, mtu: number): Promise<void> {
    const inner = `${this.#host(side)}${letter}`;
    await this.#add(inner);
    const peer = ['peer', 'name', 'eth0', 'mtu', String(mtu), 'netns', inner];
    await this.ip(side, 'link', 'add', `ct${letter}`, 'mtu', String(mtu), 'type', 'veth', ...peer);
    await this.ip(side, 'link', 'set', `ct${letter}`, 'master', bridge, 'up');
    await run(['ip', '-n', inner, 'address', 'add', `${own}/24`, 'dev', 'eth0']);
    await run(['ip', '-n', inner, 'link', 'set', 'eth0', 'up']);
    await run(['ip', '-n', inner, 'route', 'add', 'default', 'via', addressIn(own, 1)]);
  }

  /** It forwards each frame as it came: its ports merge nothing, and no filter looks at what crosses. */
  async #addSwitch(): Promise<void> {
    const own = `${this.#name}s`;
    await this.#add(own);
    await this.#set(own, 'net/bridge/bridge-nf-call-iptables', 0);
    await run(['ip', '-n', own, 'link', 'add', bridge, 'type', 'bridge']);
    await run(['ip', '-n', own, 'link', 'set', bridge, 'up']);
    for (const side of this.sides) {
      const port = `port-${side}`;
      await this.ip(side, 'link', 'add', link, 'type', 'veth', 'peer', 'name', port, 'netns', own);
      await run(inside(own, [program('offload'), port, 'rx-gro=off', 'tx-*segmentation=off', 'tx-gso-*=off']));
      await run(['ip', '-n', own, 'link', 'set', port, 'master', bridge, 'up']);
    }
  }

  /** Ends what runs in it, by pid, and removes it. */
  async close(): Promise<void> {
    const inner = this.sides.flatMap(side => ['', 'c', 'n'].map(letter => `${this.#host(side)}${letter}`));
    for (const name of [...inner, `${this.#name}s`]) {
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
    await this.#set(name, 'net/ipv4/tcp_no_metrics_save', 1);
  }

  /** Where this kernel has it. */
  async #set(name: string, path: string, value: 0 | 1): Promise<void> {
    const script = '[ ! -e "$1" ] || echo "$2" > "$1"';
    await run(inside(name, ['sh', '-c', script, 'sh', `/proc/sys/${path}`, String(value)]));
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
