/**
 * Two hosts for the datapath, each a network namespace, and daemons to run in them:
 *
 *   [a] tartan0 10.5.1.0 - 192.0.2.1 ---- veth ---- 192.0.2.2 - tartan0 10.5.2.0 [b]
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, openSync, readFileSync, readdirSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect } from 'vitest';
import type { DatapathStats } from '../../src/datapath/datapath.js';
import { native, type NativeTable } from '../../src/lib/native.js';
import type { HangLimits } from '../../src/lib/supervisor.js';
import { patience, root } from '../support/tools.js';
import { Flow, type Places } from '../support/traffic.js';

export type Host = 'a' | 'b';

export interface State extends DatapathStats {
  readonly problems: readonly string[];
  readonly adopted: boolean;
  readonly changes: number;
  readonly events: readonly string[];
}

const child = fileURLToPath(new URL('datapath-child.mjs', import.meta.url));
const number = { a: 1, b: 2 } as const;
const ip4 = (a: number, b: number, c: number, d: number): number => a * 2 ** 24 + b * 2 ** 16 + c * 2 ** 8 + d;
const echoesAfter = 200;

export function run(command: string, ...args: readonly string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Perl's Socket stands for the other end: Node speaks neither datagrams nor seqpackets over Unix sockets. */
export function perl(text: string, ...args: readonly string[]): void {
  execFileSync('perl', ['-MSocket', '-e', text, ...args], { stdio: ['ignore', 'ignore', 'inherit'] });
}

/** A directory for each test of a file, and the promise that the test left no descriptor open. */
export function useScratch(): { readonly directory: string } {
  const scratch = { directory: '' };
  const descriptors = (): number => readdirSync('/proc/self/fd').length;
  let before = 0;
  beforeEach(() => {
    native();
    scratch.directory = mkdtempSync(`/tmp/tartan-addon-${process.pid}-`);
    before = descriptors();
  });
  afterEach(() => {
    rmSync(scratch.directory, { recursive: true });
    expect(descriptors(), 'descriptors open').toBeLessThanOrEqual(before);
  });
  return scratch;
}

/** Waits until `probe` says yes; the error shows what was seen last. */
export async function until<T>(
  what: string,
  probe: () => Promise<T> | T,
  yes: (seen: T) => boolean,
  limitMs = 10_000,
): Promise<T> {
  for (const began = Date.now(); ; await delay(10)) {
    const seen = await probe();
    if (yes(seen)) return seen;
    if (Date.now() - began > limitMs * patience) throw new Error(`${what} did not happen: ${JSON.stringify(seen)}`);
  }
}

export interface DaemonOptions {
  /** What is run and answers; default: the datapath alone. */
  readonly program?: string;
  /** The built project it is of; default: this one. */
  readonly tree?: string;
  /** A command that runs it, to take capabilities away. */
  readonly through?: readonly string[];
}

/** A daemon as a child process; `kill` is SIGKILL and leaves the data process running. */
export class Daemon {
  readonly #process: ChildProcess;
  readonly #waiting = new Map<number, (reply: { result?: unknown; error?: object }) => void>();
  readonly #exited: Promise<void>;
  #next = 0;

  constructor(namespace: string, { program = child, tree = root, through = [] }: DaemonOptions = {}) {
    const command = [...through, process.execPath, program, tree];
    this.#process = spawn('ip', ['netns', 'exec', namespace, ...command], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#exited = new Promise(resolve => this.#process.once('exit', () => resolve()));
    if (!this.#process.stdout) throw new Error('no standard output');
    createInterface({ input: this.#process.stdout }).on('line', line => {
      const reply = JSON.parse(line);
      this.#waiting.get(reply.id)?.(reply);
      this.#waiting.delete(reply.id);
    });
    void this.#exited.then(() => {
      for (const answer of this.#waiting.values()) answer({ error: { message: 'the daemon is dead' } });
    });
  }

  async call(command: string, argument?: unknown): Promise<unknown> {
    const id = this.#next++;
    const reply = new Promise<{ result?: unknown; error?: object }>(resolve => this.#waiting.set(id, resolve));
    this.#process.stdin?.write(`${JSON.stringify({ id, command, argument })}\n`);
    const { result, error } = await reply;
    if (error) throw Object.assign(new Error(), error);
    return result;
  }

  async state(): Promise<State> {
    return (await this.call('state')) as State;
  }

  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#exited;
  }

  /** Resolves when the event loop has run empty by itself. */
  async exit(): Promise<void> {
    this.#process.stdin?.end();
    await this.#exited;
  }
}

export class Lab {
  readonly #id = `dp${process.pid}`;
  readonly #directory = mkdtempSync(`/tmp/tartan-${process.pid}-`);
  readonly #daemons: Daemon[] = [];
  /** A flow of a test that failed still has its port. */
  #nextPort = 7000;

  constructor() {
    for (const host of ['a', 'b'] as const) run('ip', 'netns', 'add', this.namespace(host));
    run(
      ...(['ip', '-n', this.namespace('a'), 'link', 'add', 'under', 'type', 'veth', 'peer', 'name', 'under'] as const),
      ...(['netns', this.namespace('b')] as const),
    );
    for (const host of ['a', 'b'] as const) {
      this.ip(host, 'address', 'add', `192.0.2.${number[host]}/24`, 'dev', 'under');
      this.ip(host, 'link', 'set', 'lo', 'up');
      this.ip(host, 'link', 'set', 'under', 'up');
    }
  }

  namespace(host: Host): string {
    return `${this.#id}${host}`;
  }

  runDir(host: Host, name = 'run'): string {
    return `${this.#directory}/${host}-${name}`;
  }

  ip(host: Host, ...args: readonly string[]): string {
    return run('ip', '-n', this.namespace(host), ...args);
  }

  config(host: Host, port = 8285): object {
    return {
      network: { base: ip4(10, 5, 0, 0), length: 16 },
      subnet: { base: ip4(10, 5, number[host], 0), length: 24 },
      publicIp: ip4(192, 0, 2, number[host]),
      bindAddress: ip4(192, 0, 2, number[host]),
      port,
      mtu: 1472,
      checkSource: true,
      checkDestination: true,
      engine: 'user',
      vni: 1,
    };
  }

  /** What a host publishes: the other one. */
  peers(host: Host): object[] {
    return [this.peer(host === 'a' ? 2 : 1)];
  }

  peer(node: number): object {
    return {
      identity: `10.5.${node}.0/24 n${node}`,
      prefixes: [{ base: ip4(10, 5, node, 0), length: 24 }],
      endpoint: ip4(192, 0, 2, node),
      port: 8285,
      features: 0,
    };
  }

  daemon(host: Host, how: DaemonOptions = {}): Daemon {
    const daemon = new Daemon(this.namespace(host), how);
    this.#daemons.push(daemon);
    return daemon;
  }

  /** A daemon with its datapath open, started and published: what tartand does at its start. */
  async up(
    host: Host,
    more: {
      readonly executable?: string;
      readonly lanes?: number;
      readonly hang?: HangLimits;
      readonly engines?: boolean;
    } = {},
    how: DaemonOptions = {},
    daemon = this.daemon(host, how),
  ): Promise<{ readonly daemon: Daemon; readonly adopted: boolean }> {
    const options = { runDir: this.runDir(host), device: 'tartan0', ...more };
    const { adopted } = (await daemon.call('open', options)) as State;
    await daemon.call('start', this.config(host));
    await daemon.call('publish', this.peers(host));
    await daemon.call('forwardUntil', 2 ** 45);
    return { daemon, adopted };
  }

  /** What the host adapter does to the link. */
  configureLink(host: Host): void {
    this.ip(host, 'address', 'replace', `10.5.${number[host]}.0/32`, 'dev', 'tartan0');
    this.ip(host, 'link', 'set', 'tartan0', 'up', 'mtu', '1472');
    this.ip(host, 'route', 'replace', '10.5.0.0/16', 'dev', 'tartan0');
  }

  /** Data processes of the host, zombies not counted. */
  dataProcesses(host: Host): readonly number[] {
    // ip netns pids takes longer than two of them live beside each other.
    const own = statSync(`/run/netns/${this.namespace(host)}`).ino;
    const pids = readdirSync('/proc').filter(name => nameOf(name) === 'tartan-datapath' && namespaceOf(name) === own);
    return pids.map(Number).filter(isRunning);
  }

  linkIndex(host: Host): number {
    return JSON.parse(this.ip(host, '-j', 'link', 'show', 'tartan0'))[0].ifindex;
  }

  hasLink(host: Host): boolean {
    return this.ip(host, '-br', 'link').includes('tartan0');
  }

  /** The command that runs another one in the namespace of a host. */
  enter(host: Host, command: readonly string[]): readonly [string, ...string[]] {
    return ['ip', 'netns', 'exec', this.namespace(host), ...command];
  }

  /** Numbered datagrams to the other host through the tunnel, 1000 a second. */
  flow(from: Host = 'a'): Promise<Flow> {
    const inside: Places['inside'] = (letter, command) => this.enter(letter === 'a' ? 'a' : 'b', command);
    const to = from === 'a' ? 'b' : 'a';
    return Flow.open({ inside }, { from, to, address: `10.5.${number[to]}.0`, port: this.#nextPort++, rate: 1000 });
  }

  /** One echo from a to b through the tunnel. */
  reaches(): boolean {
    try {
      run('ip', 'netns', 'exec', this.namespace('a'), 'ping', '-n', '-c', '1', '-W', '1', '10.5.2.0');
      return true;
    } catch {
      return false;
    }
  }

  /** Echoes from a to b, 1000 a second; resolves to how many were lost. */
  async lost(packets: number): Promise<number> {
    // ping waits a millisecond for the last answer (schedule_exit of iputils), so others follow it, which do not count.
    const args = ['netns', 'exec', this.namespace('a'), 'ping', '-n', '-i', '0.001', '-W', '2'];
    const count = String(packets + echoesAfter);
    const ping = spawn('ip', [...args, '-c', count, '10.5.2.0'], { stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    ping.stdout.setEncoding('utf8').on('data', part => (text += part));
    await new Promise(resolve => ping.once('close', resolve));
    if (!text.includes(`${count} packets transmitted`)) throw new Error(`ping said: ${text}`);
    const answered = [...text.matchAll(/ icmp_seq=(\d+) ttl=/g)].map(([, number]) => Number(number));
    return packets - new Set(answered.filter(number => number <= packets)).size;
  }

  async close(): Promise<void> {
    for (const daemon of this.#daemons) await daemon.kill();
    for (const host of ['a', 'b'] as const) {
      // A data process outlives its daemon; the namespace is ours, so whatever runs in it is too.
      const pids = run('ip', 'netns', 'pids', this.namespace(host)).split('\n').filter(Boolean).map(Number);
      for (const pid of pids) if (isRunning(pid)) process.kill(pid, 'SIGKILL');
      run('ip', 'netns', 'delete', this.namespace(host));
    }
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** The inode of its network namespace; undefined when it has ended. */
function namespaceOf(pid: string): number | undefined {
  return statSync(`/proc/${pid}/ns/net`, { throwIfNoEntry: false })?.ino;
}

function nameOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'latin1').trimEnd();
  } catch {
    return '';
  }
}

/** Whether the process runs, a zombie not counted. */
export function isRunning(pid: number): boolean {
  try {
    return !/\) [ZX]/.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

/** Both hosts up, and packets crossing. @param how how a is run; b is of this project and as usual */
export async function bothUp(
  lab: Lab,
  more: { readonly lanes?: number } = {},
  how: DaemonOptions = {},
  moreOfB = more,
): Promise<{ readonly a: Daemon; readonly b: Daemon }> {
  const [a, b] = await Promise.all([lab.up('a', more, how), lab.up('b', moreOfB)]);
  lab.configureLink('a');
  lab.configureLink('b');
  await until(
    'traffic',
    () => lab.reaches(),
    seen => seen,
  );
  return { a: a.daemon, b: b.daemon };
}

export async function pidOf(daemon: Daemon): Promise<number> {
  const { pid } = await daemon.state();
  if (pid === undefined) throw new Error('no data process runs');
  return pid;
}

/** Waits for another data process than `old`, at most the second that the port promises. */
export async function respawned(daemon: Daemon, old: number): Promise<State> {
  const began = Date.now();
  const state = await until(
    'a respawn',
    () => daemon.state(),
    s => s.pid !== undefined && s.pid !== old,
  );
  expect(Date.now() - began).toBeLessThan(1000);
  return state;
}

/** A memory of a data process; it has no other name. */
export function memoryOf(pid: number, memory: 'routes' | 'counters'): string {
  const descriptors = readdirSync(`/proc/${pid}/fd`).map(fd => `/proc/${pid}/fd/${fd}`);
  const found = descriptors.find(path => readlinkSync(path).startsWith(`/memfd:${memory}:`));
  if (found === undefined) throw new Error(`process ${pid} holds no ${memory}`);
  return found;
}

/** Looks into both memories of a data process. */
export function withTableOf<T>(pid: number, look: (table: NativeTable) => T): T {
  const [routes, counters] = [openSync(memoryOf(pid, 'routes'), 'r'), openSync(memoryOf(pid, 'counters'), 'r+')];
  const table = native().adoptTable(routes, counters, native().layoutVersion);
  try {
    return look(table);
  } finally {
    table.close();
  }
}
