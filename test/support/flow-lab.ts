/**
 * A host between its container, a peer and the network outside, with real packets between them.
 *
 *   [lan]  192.0.2.9 -- u0 192.0.2.1 [host] docker0 10.5.1.1 -- 10.5.1.2 [container]
 *   [peer] 10.5.2.2  -- tartan0 10.5.1.0 [host]                             the tunnel: a pair of links instead
 *
 * Each of the four has a process that is one end of flows; it holds its namespace and ends with this process.
 */
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { HostLab } from './host-lab.js';

const script = fileURLToPath(new URL('flow-child.mjs', import.meta.url));

export const addresses = {
  host: '192.0.2.1',
  lan: '192.0.2.9',
  tunnel: '10.5.1.0',
  container: '10.5.1.2',
  peer: '10.5.2.2',
  /** Of the overlay, but held by the lan. */
  forged: '10.5.2.66',
} as const;

/** Where nothing comes, nothing is seen for this long; where something comes, it may take as long as it needs. */
const silenceMs = 400;
const patienceMs = 20_000;

type Place = 'host' | 'lan' | 'container' | 'peer';

export class FlowLab {
  readonly host: HostLab;
  readonly #ends: Readonly<Record<Place, FlowEnd>>;

  private constructor(host: HostLab) {
    this.host = host;
    const namespace = ['--net', process.execPath, script] as const;
    const apart = (): FlowEnd => new FlowEnd(spawn('unshare', namespace));
    this.#ends = {
      host: new FlowEnd(spawn('nsenter', [`--net=${host.namespace}`, process.execPath, script])),
      lan: apart(),
      container: apart(),
      peer: apart(),
    };
  }

  static async open(): Promise<FlowLab> {
    const lab = new FlowLab(await HostLab.open());
    // An answer means that the process is in its namespace.
    await Promise.all(
      Object.values(lab.#ends).flatMap(end => [end.ask('serve', { port: 80 }), end.ask('serve', { port: 81 })]),
    );
    await lab.#ends.container.ask('listen', { port: 82 });
    lab.#connect();
    return lab;
  }

  /** The source that the far end of a connection sees; null when there is no connection. */
  async source(from: Place, to: string, port: number, expected: string | null, own?: string): Promise<string | null> {
    const waitMs = expected === null ? silenceMs : patienceMs;
    // The child's answer to this question is a text or null.
    return (await this.#ends[from].ask('ask', { to, port, waitMs, from: own })) as string | null;
  }

  async say(from: Place, text: string, own: string): Promise<void> {
    await this.#ends[from].ask('say', { to: addresses.container, port: 82, text, from: own });
  }

  /** All datagrams that the container got, `TEXT from ADDRESS`. */
  async heard(): Promise<readonly string[]> {
    return (await this.#ends.container.ask('heard', {})) as readonly string[];
  }

  async close(): Promise<void> {
    await Promise.all(Object.values(this.#ends).map(end => end.close()));
    await this.host.close();
  }

  #connect(): void {
    const { lan, container, peer } = this.#ends;
    const run = (command: string): string => this.host.run(command);
    run('sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0');
    run('ip link add docker0 type bridge');
    for (const [name, end] of [
      ['u0', lan],
      ['tartan0', peer],
      ['c0', container],
    ] as const)
      run(`ip link add ${name} type veth peer name eth0 netns ${end.pid}`);
    run('ip link set c0 master docker0');
    for (const [name, address] of [
      ['u0', '192.0.2.1/24'],
      ['tartan0', '10.5.1.0/32'],
      ['docker0', '10.5.1.1/24'],
    ] as const)
      run(`ip address add ${address} dev ${name}`);
    for (const name of ['u0', 'tartan0', 'docker0', 'c0']) run(`ip link set ${name} up`);
    run('ip route add 10.5.0.0/16 dev tartan0');
    this.#address(lan, ['192.0.2.9/24', '10.5.2.66/32'], ['10.5.1.0/24 via 192.0.2.1', '10.5.2.2 via 192.0.2.1']);
    this.#address(container, ['10.5.1.2/24'], ['default via 10.5.1.1']);
    this.#address(peer, ['10.5.2.2/32'], ['10.5.1.0/24 dev eth0', 'default via 10.5.1.0 dev eth0 onlink']);
    // The peer asks for every address of the subnet on the link, as if it were a tunnel.
    run('sysctl -qw net.ipv4.conf.tartan0.proxy_arp=1');
  }

  #address(end: FlowEnd, own: readonly string[], routes: readonly string[]): void {
    const inside = (command: string): string => this.host.run(`nsenter --net=/proc/${end.pid}/ns/net ${command}`);
    for (const address of own) inside(`ip address add ${address} dev eth0`);
    inside('ip link set eth0 up');
    for (const route of routes) inside(`ip route add ${route}`);
  }
}

class FlowEnd {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #waiting = new Map<number, (value: unknown) => void>();
  #count = 0;

  constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
    createInterface({ input: child.stdout }).on('line', line => {
      const { id, value } = JSON.parse(line) as { readonly id: number; readonly value: unknown };
      this.#waiting.get(id)?.(value);
      this.#waiting.delete(id);
    });
  }

  /** unshare and nsenter become the program they start. */
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  ask(action: string, options: Readonly<Record<string, unknown>>): Promise<unknown> {
    const id = ++this.#count;
    return new Promise(resolve => {
      this.#waiting.set(id, resolve);
      this.#child.stdin.write(`${JSON.stringify({ id, action, ...options })}\n`);
    });
  }

  async close(): Promise<void> {
    const ended = new Promise(resolve => this.#child.once('exit', resolve));
    this.#child.stdin.end();
    await ended;
  }
}
