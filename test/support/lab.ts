/**
 * A cluster on one machine: hosts a, b, c ... at 192.0.2.1, .2, .3 in namespaces of their own, joined by a bridge, and
 * a real etcd at 192.0.2.254 (the picture is in namespaces.ts). Everything is removed when the scope closes, and by
 * the reaper when the test process ends in any other way.
 */
import type { Scope } from '../../src/lib/scope.js';
import { DockerEngine, type EngineOptions } from './docker-engine.js';
import { LabEtcd } from './lab-etcd.js';
import { LabHost, type Flags } from './lab-host.js';
import { Namespaces } from './namespaces.js';
import { Capture, Flow, transfer, type Transfer } from './traffic.js';

export interface LabOptions {
  readonly nodes: readonly string[];
  readonly mtu?: number;
  /** Those of the nodes that are as unprivileged containers of LXC. */
  readonly unprivileged?: readonly string[];
  /** false: etcd is not started; `lab.etcd.start()` does it later. */
  readonly etcd?: boolean;
  /** false: none is written; default: `defaultNetwork`. */
  readonly network?: string | false;
  /** Real engines instead of a bridge with a namespace; started by `bringUp`. */
  readonly docker?: boolean | EngineOptions;
}

export const keyPrefix = '/coreos.com/network';
/** Hosts take subnets below 10.5.200.0; those above are left to a test for peers, addresses and files of its own. */
export const defaultNetwork = '{"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","Backend":{"Type":"udp"}}';
const etcdAddress = '192.0.2.254';
const flowPort = 7001;
const transferPort = 7002;

export class Lab {
  readonly spaces: Namespaces;
  readonly etcd: LabEtcd;
  readonly hosts: readonly LabHost[];
  readonly #docker: boolean;

  private constructor(spaces: Namespaces, etcd: LabEtcd, hosts: readonly LabHost[], docker: boolean) {
    this.spaces = spaces;
    this.etcd = etcd;
    this.hosts = hosts;
    this.#docker = docker;
  }

  static async open(scope: Scope, o: LabOptions): Promise<Lab> {
    const mtu = o.mtu ?? 1500;
    const spaces = await scope.own('namespaces', new Namespaces());
    await spaces.openUnderlay(mtu);
    await spaces.openHost('e', etcdAddress, mtu);
    const etcd = new LabEtcd(spaces, etcdAddress);
    const hosts: LabHost[] = [];
    for (const [index, letter] of o.nodes.entries()) {
      const host = new LabHost(spaces, letter, `192.0.2.${index + 1}`, etcd.endpoint);
      await spaces.openHost(letter, host.address, mtu, o.unprivileged?.includes(letter));
      if (o.docker) host.engine = new DockerEngine(host, o.docker === true ? {} : o.docker);
      else await spaces.openContainer(letter);
      hosts.push(host);
    }
    const lab = new Lab(spaces, etcd, hosts, !!o.docker);
    if (o.etcd !== false) {
      await etcd.start();
      if (o.network !== false) await lab.setNetwork(o.network);
    }
    return lab;
  }

  async setNetwork(document: string = defaultNetwork): Promise<void> {
    await this.etcd.put(`${keyPrefix}/config`, document);
  }

  node(letter: string): LabHost {
    const host = this.hosts.find(candidate => candidate.letter === letter);
    if (!host) throw new Error(`the lab has no host ${letter}`);
    return host;
  }

  /** Every daemon, every container, every route. */
  async bringUp(flags: Flags = {}): Promise<void> {
    await Promise.all(this.hosts.map(host => host.bringUp(flags)));
    if (this.#docker) await Promise.all(this.hosts.map(host => host.startEngine()));
    await this.waitForRoutes();
  }

  async waitForRoutes(): Promise<void> {
    await Promise.all(this.hosts.map(host => host.waitForPeers(this.hosts.length - 1)));
  }

  /** Ordered pairs of hosts. */
  get pairs(): readonly (readonly [LabHost, LabHost])[] {
    return this.hosts.flatMap(from => this.hosts.filter(to => to !== from).map(to => [from, to] as const));
  }

  /** 1000 numbered datagrams a second from container to container. */
  flow(from: LabHost, to: LabHost, rate = 1000): Promise<Flow> {
    const ends = { from: from.containerNamespace, to: to.containerNamespace };
    return Flow.open(this.spaces, { ...ends, address: to.containerAddress, port: flowPort, rate });
  }

  transfer(from: LabHost, to: LabHost, bytes: number): Promise<Transfer> {
    const ends = { from: from.containerNamespace, to: to.containerNamespace };
    return transfer(this.spaces, { ...ends, address: to.containerAddress, port: transferPort, bytes });
  }

  /** Packets of the underlay that match a tcpdump filter. */
  captureUnderlay(filter: string): Promise<Capture> {
    return Capture.open(this.spaces, 'u', 'br0', filter);
  }

  lastWords(): string {
    return this.hosts.map(host => host.lastWords()).join('\n');
  }
}
