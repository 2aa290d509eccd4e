/**
 * Two hosts of a lab as the bench has them: Docker's rules and connection tracking, frames of the MTU on the underlay,
 * which is a switch or one veth between the two. Host a runs the engine kernel; host b one of several things.
 *
 *   [ac] - [a] kernel ~~~ underlay ~~~ [b] kernel | user | a build before the engine kernel | plain (no tartan) - [bc]
 */
import { join } from 'node:path';
import type { Scope } from '../../src/lib/scope.js';
import { dockerRules } from '../bench/docker-rules.js';
import { offloads } from '../bench/lab.js';
import { burst } from './burst.js';
import type { LabHost } from './lab-host.js';
import { keyPrefix, Lab } from './lab.js';
import { compile, root, run, start, until } from './tools.js';
import { secondLine, type Places } from './traffic.js';

export const topologies = ['bridge', 'direct'] as const;
export type Topology = (typeof topologies)[number];
export type Other = 'kernel' | 'user' | 'earlier' | 'plain';

export interface MixOptions {
  readonly topology: Topology;
  readonly other: Other;
  /** tartand of the build before the engine kernel. */
  readonly earlierProgram?: string;
}

export const network = '10.5.0.0/16';
const subnets = { a: '10.5.1.0/24', b: '10.5.2.0/24' } as const;
const directAddresses = { a: '198.51.100.1', b: '198.51.100.2' } as const;
type Side = 'a' | 'b';

const offload = join(root, 'native/build/offload');
const plain = join(root, 'native/build/plain');

export class MixLab {
  readonly lab: Lab;
  readonly topology: Topology;
  readonly other: Other;

  private constructor(lab: Lab, { topology, other }: MixOptions) {
    this.lab = lab;
    this.topology = topology;
    this.other = other;
  }

  static async open(scope: Scope, o: MixOptions): Promise<MixLab> {
    compile('test/support/burst.c', burst);
    compile('test/bench/offload.c', offload);
    compile('test/bench/plain.c', plain);
    const mix = new MixLab(await Lab.open(scope, { nodes: ['a', 'b'] }), o);
    if (o.topology === 'direct') await mix.#join();
    for (const side of ['a', 'b'] as const) await mix.#prepare(side);
    if (o.other === 'earlier') mix.b.program = o.earlierProgram ?? '';
    await mix.a.bringUp(mix.flags('kernel'));
    if (o.other === 'plain') await mix.#startPlain();
    else await mix.b.bringUp(mix.flags(o.other));
    await mix.a.waitForPeers(1);
    await mix.untilEngine(o.other === 'kernel' ? 'kernel' : 'user');
    return mix;
  }

  get a(): LabHost {
    return this.lab.node('a');
  }

  get b(): LabHost {
    return this.lab.node('b');
  }

  /** The link of the underlay, by the same name on both hosts. */
  get underlay(): string {
    return this.topology === 'direct' ? 'under' : 'eth0';
  }

  /** On the underlay. */
  address(side: Side): string {
    return this.topology === 'direct' ? directAddresses[side] : this.lab.node(side).address;
  }

  /**
   * The namespaces, with all that runs there on one processor, and so all queues of its packets: a veth moves from one
   * processor to another under load, and what comes then overtakes what waits at the former one, without any overlay too.
   */
  get inOrder(): Places {
    return { inside: (letter, command) => this.lab.spaces.inside(letter, ['taskset', '-c', '0', ...command]) };
  }

  /** Of a daemon with that engine. */
  flags(engine: Other): Readonly<Record<string, string>> {
    return { iface: this.underlay, ...(engine !== 'earlier' && { engine }) };
  }

  /** Pings until host a, and b if it runs tartan, say that packets to the other go by that engine. */
  async untilEngine(engine: 'user' | 'kernel', timeoutMs = 20_000): Promise<void> {
    const hosts = this.other === 'kernel' ? [this.a, this.b] : [this.a];
    await until(
      `packets by the engine ${engine}`,
      async () => {
        if (!(await this.a.pingFromContainer(this.b.containerAddress))) return false;
        const all = await Promise.all(hosts.map(engineOf));
        return all.every(one => one === engine);
      },
      timeoutMs,
    );
  }

  /** One veth between the two, beside the switch, which etcd is behind. */
  async #join(): Promise<void> {
    const [a, b] = [this.lab.spaces.name('a'), this.lab.spaces.name('b')];
    await run(['ip', '-n', a, 'link', 'add', 'under', 'type', 'veth', 'peer', 'name', 'under', 'netns', b]);
    for (const side of ['a', 'b'] as const) {
      const host = this.lab.node(side);
      await host.run('ip', 'address', 'add', `${directAddresses[side]}/24`, 'dev', 'under');
      await host.run('ip', 'link', 'set', 'under', 'up');
    }
  }

  async #prepare(side: Side): Promise<void> {
    const host = this.lab.node(side);
    host.preferSubnet(subnets[side]);
    await host.run(offload, this.underlay, ...offloads.wire);
    const port = ['rx-gro=off', 'tx-*segmentation=off', 'tx-gso-*=off'];
    if (this.topology === 'bridge') await run(this.lab.spaces.inside('u', [offload, `p${side}`, ...port]));
    await host.run('sysctl', '-q', '-e', '-w', 'net.bridge.bridge-nf-call-iptables=1');
    const rules = dockerRules({ bridge: 'br-ct', network, subnet: subnets[side] });
    await run(host.inside(['iptables-restore']), { input: rules });
  }

  /** A peer with flannel's bare format and a lease as flannel writes it: one packet a call, no offloads. */
  async #startPlain(): Promise<void> {
    const { spaces, etcd } = this.lab;
    const child = start(spaces.inside('b', [plain, 'plain0', this.address('b'), this.address('a'), '8285']));
    await secondLine(child);
    await this.b.run('ip', 'address', 'add', '10.5.2.0/32', 'dev', 'plain0');
    await this.b.run('ip', 'link', 'set', 'plain0', 'up', 'mtu', '1472', 'txqueuelen', '5000');
    await this.b.run('ip', 'route', 'add', network, 'dev', 'plain0');
    await spaces.addressContainer('b', '10.5.2.1/24', '10.5.2.2/24', 1472);
    const lease = { PublicIP: this.address('b'), PublicIPv6: null, BackendType: 'udp', BackendData: null };
    await etcd.put(`${keyPrefix}/subnets/10.5.2.0-24`, JSON.stringify(lease));
  }
}

export async function engineOf(host: LabHost): Promise<'user' | 'kernel' | undefined> {
  return (await host.status()).peers[0]?.watched?.engine;
}

const faultNames = /^(ReasmFails|InCsumErrors|InHdrErrors)$/;

/** What the stacks of both hosts and both containers count of broken packets: snmp of proc(5), summed by name. */
export async function faultsOf({ lab }: MixLab): Promise<Readonly<Record<string, number>>> {
  const sums: Record<string, number> = {};
  for (const letter of ['a', 'ac', 'b', 'bc']) {
    const lines = (await run(lab.spaces.inside(letter, ['cat', '/proc/net/snmp']))).trim().split('\n');
    for (let at = 0; at + 1 < lines.length; at += 2) {
      const [[group = '', ...names], [, ...values]] = [lines[at]?.split(' ') ?? [], lines[at + 1]?.split(' ') ?? []];
      for (const [place, name] of names.entries())
        if (faultNames.test(name)) sums[`${group}${name}`] = (sums[`${group}${name}`] ?? 0) + Number(values[place]);
    }
  }
  return sums;
}
