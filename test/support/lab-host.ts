/**
 * One host of a lab: its own namespace, its own directories, its own tartand, and one container that gets the leased
 * subnet's second address. The picture is in namespaces.ts.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { dirname, join } from 'node:path';
import type { Status } from '../../src/agent/status.js';
import { Daemon } from './daemon.js';
import type { DockerEngine } from './docker-engine.js';
import type { Namespaces } from './namespaces.js';
import { attempt, daemonProgram, root, run, toolProgram, until, type Outcome } from './tools.js';

export type Flags = Readonly<Record<string, string>>;

export class LabHost {
  readonly letter: string;
  readonly address: string;
  readonly runDir: string;
  readonly stateDir: string;
  readonly subnetFile: string;
  readonly dockerEnvFile: string;
  readonly spaces: Namespaces;
  /** Set when a real engine runs the host's container. */
  engine: DockerEngine | undefined;
  /** The daemon; of another version when a test sets it. */
  program = daemonProgram;
  readonly #etcdEndpoint: string;
  #daemon: Daemon | undefined;

  constructor(spaces: Namespaces, letter: string, address: string, etcdEndpoint: string) {
    const directory = join(spaces.directory, letter);
    this.spaces = spaces;
    this.letter = letter;
    this.address = address;
    this.#etcdEndpoint = etcdEndpoint;
    this.runDir = join(directory, 'run');
    this.stateDir = join(directory, 'state');
    this.subnetFile = join(directory, 'subnet.env');
    this.dockerEnvFile = join(directory, 'docker.env');
  }

  get daemon(): Daemon {
    if (!this.#daemon) throw new Error(`host ${this.letter} has no daemon yet`);
    return this.#daemon;
  }

  get containerNamespace(): string {
    return `${this.letter}c`;
  }

  flags(more: Flags = {}): readonly string[] {
    const flags = {
      'etcd-endpoints': this.#etcdEndpoint,
      'run-dir': this.runDir,
      'state-dir': this.stateDir,
      'subnet-file': this.subnetFile,
      'docker-env-file': this.dockerEnvFile,
      ...more,
    };
    return Object.entries(flags).map(([name, value]) => `--${name}=${value}`);
  }

  /** The command line of a daemon of this host, to be run inside its namespace. */
  daemonCommand(more: Flags = {}): readonly string[] {
    return this.inside([process.execPath, this.program, ...this.flags(more)]);
  }

  inside(command: readonly string[]): readonly string[] {
    return this.spaces.inside(this.letter, this.withIptables(command));
  }

  /** The command where `iptables` is what the host's engine is to use; it needs a mount namespace of its own. */
  withIptables(command: readonly string[]): readonly string[] {
    const kind = this.engine?.options.iptables;
    if (kind === undefined) return command;
    const lock = join(this.spaces.directory, this.letter, 'xtables.lock');
    return ['sh', join(root, 'test/support/iptables-variant.sh'), kind, lock, ...command];
  }

  /** Starts tartand and does not wait. */
  startDaemon(more: Flags = {}, environment: Readonly<Record<string, string>> = {}): Daemon {
    if (this.#daemon?.running) throw new Error(`host ${this.letter} runs a daemon already`);
    this.#daemon = new Daemon(this.daemonCommand(more), join(this.spaces.directory, `${this.letter}.log`), environment);
    return this.#daemon;
  }

  /** Starts tartand, waits until it is ready and gives the container its address. */
  async bringUp(more: Flags = {}): Promise<void> {
    await this.startDaemon(more).waitForEvent('daemon.ready');
    if (!this.engine) await this.addressContainer();
  }

  /** The real engine, if the lab has them, with the one container. */
  async startEngine(): Promise<void> {
    if (!this.engine) return;
    await this.engine.start();
    await this.engine.runContainer('box');
    await this.spaces.adoptContainer(this.letter, await this.engine.pidOf('box'));
  }

  async addressContainer(): Promise<void> {
    const bridge = this.#subnetEnv('FLANNEL_SUBNET');
    await this.spaces.addressContainer(this.letter, bridge, `${this.containerAddress}/24`, this.tunnelMtu);
  }

  /** `10.5.7.0/24`, as the daemon wrote it. */
  get subnet(): string {
    return this.#subnetEnv('FLANNEL_SUBNET').replace(/\.1\//, '.0/');
  }

  /** What containers have, too. */
  get tunnelMtu(): number {
    return Number(this.#subnetEnv('FLANNEL_MTU'));
  }

  get tunnelAddress(): string {
    return this.subnet.replace(/\/.*/, '');
  }

  /** The second address of the subnet; Docker gives the same to its first container. */
  get containerAddress(): string {
    return this.tunnelAddress.replace(/\.0$/, '.2');
  }

  #subnetEnv(name: string): string {
    const text = readFileSync(this.subnetFile, 'utf8');
    return new RegExp(`^${name}=(.*)$`, 'm').exec(text)?.[1] ?? '';
  }

  async stopDaemon(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | string> {
    this.daemon.signal(signal);
    return this.daemon.end();
  }

  /** The document of the local socket; `tartan status -o json` prints the same. */
  status(): Promise<Status> {
    return new Promise((resolve, reject) => {
      const question = request(
        { socketPath: join(this.runDir, 'tartand.sock'), path: '/status', timeout: 5000 },
        answer => {
          let text = '';
          answer.setEncoding('utf8').on('data', (part: string) => (text += part));
          answer.on('end', () => resolve(JSON.parse(text) as Status));
        },
      );
      question.on('error', reject).on('timeout', () => question.destroy(new Error('the status socket is silent')));
      question.end();
    });
  }

  /** A start with a saved lease is ready before etcd has confirmed it. */
  async untilConfirmed(): Promise<void> {
    await until(`the lease of host ${this.letter} is confirmed`, async () => (await this.status()).ready);
  }

  /** Packets that the kernel link has sent. */
  async sentByKernel(): Promise<number> {
    const [link] = JSON.parse(await this.run('ip', '-j', '-s', 'link', 'show', 'tartan-k'));
    return link.stats64.tx.packets;
  }

  /** Pings until the kernel link carries what is sent. */
  async untilByKernel(to: LabHost): Promise<void> {
    await until(`packets from ${this.letter} by the kernel`, async () => {
      const before = await this.sentByKernel();
      await this.pingFromContainer(to.containerAddress, 5);
      return (await this.sentByKernel()) >= before + 5;
    });
  }

  async counters(): Promise<Readonly<Record<string, number>>> {
    return (await this.status()).datapath?.counters ?? {};
  }

  async datapathPid(): Promise<number> {
    const pid = (await this.status()).datapath?.pid;
    if (!pid) throw new Error(`host ${this.letter} has no data process`);
    return pid;
  }

  /** Peers' subnets that the data plane forwards to, sorted. */
  async peerSubnets(): Promise<readonly string[]> {
    return (await this.status()).peers.map(({ subnet }) => subnet).sort();
  }

  async waitForPeers(count: number): Promise<void> {
    await until(`host ${this.letter} has ${count} peers`, async () => {
      const { peers, datapath } = await this.status();
      return peers.length === count && datapath !== null && datapath.generationAdopted === datapath.generationPublished;
    });
  }

  /** The operator's tool on this host. */
  tool(...args: readonly string[]): Promise<Outcome> {
    return this.toolBehind([], ...args);
  }

  /** @param before a command that runs the tool */
  toolBehind(before: readonly string[], ...args: readonly string[]): Promise<Outcome> {
    return attempt(this.inside([...before, process.execPath, toolProgram, ...args, ...this.#where(args[0])]));
  }

  /** Options by which a command of the tool finds this host's daemon or the lab's etcd. */
  #where(command: string | undefined): readonly string[] {
    const runDir = ['--run-dir', this.runDir];
    const etcd = ['--etcd-endpoints', this.#etcdEndpoint];
    if (['status', 'docker', 'peers', 'top', 'ping', 'trace'].includes(command ?? '')) return runDir;
    if (command === 'cleanup' || command === 'events' || command === 'doctor')
      return [...runDir, '--state-dir', this.stateDir];
    return command === 'config' || command === 'lease' ? etcd : [...etcd, ...runDir, '--state-dir', this.stateDir];
  }

  async pingFromContainer(address: string, count = 1): Promise<boolean> {
    return (await this.inContainer('busybox', 'ping', '-c', String(count), '-W', '1', address)).status === 0;
  }

  inContainer(...command: readonly string[]): Promise<Outcome> {
    return attempt(this.spaces.inside(this.containerNamespace, command), { timeoutMs: 15_000 });
  }

  /** Command in the host's namespace that must succeed; its standard output. */
  run(...command: readonly string[]): Promise<string> {
    return run(this.inside(command));
  }

  /** So that the daemon, at its first start, asks for this subnet. */
  preferSubnet(subnet: string): void {
    const address = subnet.replace('.0/', '.1/');
    mkdirSync(dirname(this.subnetFile), { recursive: true });
    writeFileSync(
      this.subnetFile,
      `FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=${address}\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n`,
    );
  }

  lastWords(): string {
    return `--- host ${this.letter}\n${this.#daemon?.lastWords() ?? 'no daemon was started'}`;
  }
}

export function isAlive(pid: number): boolean {
  const path = `/proc/${pid}/status`;
  return existsSync(path) && !/^State:\s+[ZX]/m.test(readFileSync(path, 'utf8'));
}
