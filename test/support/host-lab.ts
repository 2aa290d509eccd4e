/**
 * A network namespace of its own and the kernel's HostNetwork inside it.
 *
 *   [test] --stdin/stdout--> [host-child in the namespace] --netlink, /proc/sys, iptables--> namespace
 *
 * The namespace has no name: it lives as long as its holder, which ends with this process, however that ends.
 */
import { execFile, execFileSync, spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, vi } from 'vitest';
import type { HostInterface, HostNetwork, HostState } from '../../src/host/host.js';
import { TartanError, type ErrorCode } from '../../src/lib/errors.js';
import type { HostPlan } from '../../src/model/plan.js';
import type { HostCall } from './host-child.js';
import { findTool } from './tools.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

interface Answer {
  readonly value?: unknown;
  readonly error?: string;
  readonly code?: ErrorCode;
}

/** What the host's process finds installed. */
export interface HostPrograms {
  readonly without?: readonly ('iptables' | 'nft')[];
  /** `iptables` is the legacy variant. */
  readonly legacy?: boolean;
  /** The networks that it is told to expect. */
  readonly networks?: readonly string[];
}

export class HostLab {
  readonly directory = mkdtempSync(join(tmpdir(), `tartan-host-${process.pid}-`));
  readonly #holder = spawn('unshare', ['--net', 'cat'], { stdio: ['pipe', 'ignore', 'inherit'] });
  readonly #children: RemoteHost[] = [];
  readonly #spawned: { readonly child: ChildProcessWithoutNullStreams; readonly ended: Promise<unknown> }[] = [];

  /** @param child the file of test/support that runs in the namespace, without its ending */
  static async open(child = 'host-child'): Promise<HostLab> {
    const lab = new HostLab();
    lab.#compile(child);
    const ours = readlinkSync('/proc/self/ns/net');
    await vi.waitFor(() => expect(readlinkSync(lab.namespace)).not.toBe(ours), { timeout: 5000, interval: 5 });
    lab.run('ip link set lo up');
    return lab;
  }

  get namespace(): string {
    return `/proc/${this.#holder.pid}/ns/net`;
  }

  /** Runs words separated by blanks inside the namespace. @returns standard output */
  run(command: string, input = ''): string {
    const words = [`--net=${this.namespace}`, ...command.split(' ')];
    return execFileSync('nsenter', words, { encoding: 'utf8', input, stdio: ['pipe', 'pipe', 'pipe'] });
  }

  /** A link u0 with the address 192.0.2.1/24, whose other end has nothing. */
  addUnderlay(): void {
    this.run('ip link add u0 type veth peer name u1');
    this.run('ip addr add 192.0.2.1/24 dev u0');
    for (const name of ['u0', 'u1']) this.run(`ip link set ${name} up`);
  }

  async runAsync(command: string): Promise<string> {
    const { stdout } = await promisify(execFile)('nsenter', [`--net=${this.namespace}`, ...command.split(' ')]);
    return stdout;
  }

  /** Rules and chains as iptables-save says them, without counters, dates and tables that hold nothing. */
  rules(): string {
    const text = this.run('iptables-save');
    const tables = text.split(/^\*/m).slice(1);
    return tables
      .filter(table => /^-A|^:\S+ -/m.test(table))
      .map(table => `*${table}`.replace(/\[\d+:\d+\]|^#.*\n?/gm, ''))
      .sort()
      .join('');
  }

  /** All that filters packets, without counters and dates: both variants of iptables, and nftables. */
  filters(): string {
    const saved = ['iptables-nft-save', 'iptables-legacy-save'].map(program => this.run(program));
    const rules = saved.map(text => text.replace(/\[\d+:\d+\]|^#.*\n?/gm, ''));
    return [...rules, this.run('nft --stateless list ruleset')].join('\n');
  }

  /** No rule of anybody. The tables of legacy iptables are there afterwards, because nothing takes them away. */
  emptyFilters(): void {
    this.run('nft flush ruleset');
    const chains = [
      ['raw', 'PREROUTING', 'OUTPUT'],
      ['filter', 'INPUT', 'FORWARD', 'OUTPUT'],
      ['nat', 'PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'],
    ];
    const tables = chains.map(([table, ...names]) => [
      `*${table}`,
      ...names.map(name => `:${name} ACCEPT`),
      'COMMIT\n',
    ]);
    this.run('iptables-legacy-restore', tables.map(lines => lines.join('\n')).join(''));
  }

  async host(programs: HostPrograms = {}): Promise<RemoteHost> {
    const script = join(this.directory, 'test/support/host-child.js');
    const { without = [], legacy = false, networks = [] } = programs;
    const hidden = without
      .flatMap(name => (name === 'nft' ? ['nft'] : ['iptables-nft', 'iptables-legacy']))
      .map(fileOf);
    // In a mount namespace of its own: a program under /dev/null cannot be started.
    const hide = 'for file; do mount --bind /dev/null "$file"; done; exec "$0" "$script" $networks';
    const command = ['unshare', '--mount', 'sh', '-c', hide, process.execPath, ...hidden];
    const child = spawn('nsenter', [`--net=${this.namespace}`, ...command], {
      env: {
        ...process.env,
        script,
        networks: networks.join(' '),
        ...(legacy && { PATH: `${this.#legacyPath()}:${process.env['PATH'] ?? ''}` }),
      },
    });
    const host = new RemoteHost(child);
    this.#children.push(host);
    await host.interfaces();
    return host;
  }

  /** Starts a child other than host-child in the namespace; it ends with its input. */
  spawn(name: string, ...args: readonly string[]): ChildProcessWithoutNullStreams {
    const script = join(this.directory, `test/support/${name}.js`);
    const child = spawn('nsenter', [`--net=${this.namespace}`, process.execPath, script, ...args]);
    this.#spawned.push({ child, ended: new Promise(resolve => child.once('close', resolve)) });
    return child;
  }

  /** A directory in which the iptables programs are those of the legacy variant. */
  #legacyPath(): string {
    const path = join(this.directory, 'legacy');
    if (!existsSync(path)) {
      mkdirSync(path);
      for (const name of ['iptables', 'iptables-save', 'iptables-restore'])
        symlinkSync(fileOf('iptables-legacy'), join(path, name));
    }
    return path;
  }

  async close(): Promise<void> {
    for (const { child } of this.#spawned) child.stdin.end();
    await Promise.all([...this.#children.map(child => child.close()), ...this.#spawned.map(({ ended }) => ended)]);
    const ended = new Promise(resolve => this.#holder.once('exit', resolve));
    this.#holder.stdin.end();
    await ended;
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** Only what the child imports, from the sources as they are now. */
  #compile(child: string): void {
    const tsconfig = join(this.directory, 'tsconfig.json');
    const compilerOptions = {
      noEmit: false,
      noCheck: true,
      rootDir: root,
      outDir: this.directory,
      typeRoots: [join(root, 'node_modules/@types')],
    };
    const files = [join(root, `test/support/${child}.ts`)];
    writeFileSync(
      tsconfig,
      JSON.stringify({ extends: join(root, 'tsconfig.json'), compilerOptions, include: [], files }),
    );
    writeFileSync(join(this.directory, 'package.json'), '{"type":"module"}');
    symlinkSync(join(root, 'node_modules'), join(this.directory, 'node_modules'));
    symlinkSync(join(root, 'dist'), join(this.directory, 'dist'));
    execFileSync(join(root, 'node_modules/.bin/tsc'), ['-p', tsconfig], { stdio: 'inherit' });
  }
}

function fileOf(program: string): string {
  const found = findTool(program);
  if (!found) throw new Error(`no ${program}: run test/support/setup.sh`);
  return realpathSync(found);
}

/** HostNetwork spoken over a pipe. */
export class RemoteHost implements HostNetwork {
  hearsAll = false;
  rings = 0;
  readonly exitCode: Promise<number | string | null>;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #waiting: { resolve(value: unknown): void; reject(error: unknown): void }[] = [];
  readonly #listeners: (() => void)[] = [];
  #errors = '';

  constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
    child.stderr.on('data', (chunk: Buffer) => (this.#errors += chunk.toString()));
    createInterface({ input: child.stdout }).on('line', line => this.#onLine(line));
    this.exitCode = new Promise(resolve => {
      child.once('close', (code, signal) => {
        for (const one of this.#waiting.splice(0)) one.reject(new Error(`host-child ended: ${this.#errors}`));
        resolve(code ?? signal);
      });
    });
  }

  // The other end is our own child: what it answers to a call is of that call's type.
  interfaces(): Promise<readonly HostInterface[]> {
    return this.#ask({ call: 'interfaces' }) as Promise<readonly HostInterface[]>;
  }

  routeTo(address: Parameters<HostNetwork['routeTo']>[0]): ReturnType<HostNetwork['routeTo']> {
    return this.#ask({ call: 'routeTo', address }) as ReturnType<HostNetwork['routeTo']>;
  }

  async deadNeighbour(address: Parameters<HostNetwork['deadNeighbour']>[0]): ReturnType<HostNetwork['deadNeighbour']> {
    return ((await this.#ask({ call: 'deadNeighbour', address })) ?? undefined) as Awaited<
      ReturnType<HostNetwork['deadNeighbour']>
    >;
  }

  defaultRoute(): ReturnType<HostNetwork['defaultRoute']> {
    return this.#ask({ call: 'defaultRoute' }) as ReturnType<HostNetwork['defaultRoute']>;
  }

  apply(network: string, plan: HostPlan | undefined, o: { readonly heardOnly?: boolean } = {}): Promise<HostState> {
    return this.#ask({ call: 'apply', network, plan, heardOnly: o.heardOnly === true }) as Promise<HostState>;
  }

  cleanup(): Promise<HostState> {
    return this.#ask({ call: 'cleanup' }) as Promise<HostState>;
  }

  async block(ms: number): Promise<void> {
    await this.#ask({ call: 'block', ms });
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  async close(): Promise<void> {
    this.#child.stdin.end();
    await this.exitCode;
  }

  #ask(request: HostCall): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#child.stdin.write(`${JSON.stringify(request)}\n`);
    });
  }

  #onLine(line: string): void {
    const message = JSON.parse(line) as 'change' | Answer;
    if (message === 'change') {
      this.rings++;
      for (const listener of this.#listeners) listener();
      return;
    }
    const waiting = this.#waiting.shift();
    if (message.error === undefined) waiting?.resolve(message.value);
    else waiting?.reject(message.code ? new TartanError(message.code, message.error) : new Error(message.error));
  }
}
