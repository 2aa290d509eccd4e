/**
 * A real etcd for tests: own child process, loopback ports of its own, its own temporary directory, stopped by its pid.
 * Binaries: TARTAN_ETCD and TARTAN_ETCDCTL, else from PATH, else unpacked by the set-up script.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, openSync, closeSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { needTool } from './tools.js';

const run = promisify(execFile);

export interface EtcdServerOptions {
  /** More command line arguments. */
  readonly args?: readonly string[];
  readonly scheme?: 'http' | 'https';
}

export class EtcdServer {
  readonly endpoint: string;
  readonly port: number;
  readonly #directory: string;
  readonly #options: EtcdServerOptions;
  readonly #ports: readonly [number, number];
  #child: ChildProcess;

  private constructor(directory: string, ports: readonly [number, number], options: EtcdServerOptions) {
    this.#directory = directory;
    this.#ports = ports;
    this.#options = options;
    this.port = ports[0];
    this.endpoint = `${options.scheme ?? 'http'}://127.0.0.1:${ports[0]}`;
    this.#child = this.#spawn();
  }

  static async start(options: EtcdServerOptions = {}): Promise<EtcdServer> {
    const directory = mkdtempSync(join(tmpdir(), `tartan-etcd-${process.pid}-`));
    const server = new EtcdServer(directory, await freePorts(), options);
    try {
      await server.#healthy();
      return server;
    } catch (error) {
      await server.stop();
      throw error;
    }
  }

  /** A file in its directory: `data/...`, `log`. */
  file(name: string): string {
    return join(this.#directory, name);
  }

  get pid(): number {
    const { pid } = this.#child;
    if (pid === undefined) throw new Error('etcd was not started');
    return pid;
  }

  signal(name: 'SIGSTOP' | 'SIGCONT' | 'SIGKILL'): void {
    process.kill(this.pid, name);
  }

  /** Kills the process, keeps the data, starts again on the same ports. */
  async restart(o: { readonly wipe?: boolean } = {}): Promise<void> {
    await this.kill();
    if (o.wipe) rmSync(join(this.#directory, 'data'), { recursive: true, force: true });
    this.#child = this.#spawn();
    await this.#healthy();
  }

  /** Keeps a copy of the data, as an operator's backup does. */
  async backUp(): Promise<void> {
    await this.ctl('snapshot', 'save', this.file('snapshot'));
    await this.kill();
    rmSync(this.file('copy'), { recursive: true, force: true });
    cpSync(this.file('data'), this.file('copy'), { recursive: true });
    await this.restart();
  }

  /** Starts again on the copy. @param token makes it a member of another cluster, as `etcdctl snapshot restore` does */
  async restore(token?: string): Promise<void> {
    await this.kill();
    rmSync(this.file('data'), { recursive: true });
    cpSync(this.file('copy'), this.file('data'), { recursive: true });
    if (token !== undefined) await this.#restoreAs(token);
    await this.restart();
  }

  async #restoreAs(token: string): Promise<void> {
    const url = `http://127.0.0.1:${this.#ports[1]}`;
    const args = ['snapshot', 'restore', this.file('snapshot'), '--name', 'test'];
    const member = ['--initial-cluster', `test=${url}`, '--initial-advertise-peer-urls', url];
    rmSync(this.file('data'), { recursive: true });
    await this.ctl(...args, ...member, '--initial-cluster-token', token, '--data-dir', this.file('data'));
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = new Promise(resolve => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await gone;
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** etcdctl with the v3 API; its standard output. */
  async ctl(...args: readonly string[]): Promise<string> {
    const { stdout } = await run(needTool('TARTAN_ETCDCTL', 'etcdctl'), ['--endpoints', this.endpoint, ...args], {
      env: { ...process.env, ETCDCTL_API: '3' },
    });
    return stdout;
  }

  #spawn(): ChildProcess {
    const [client, peer] = this.#ports.map(port => `127.0.0.1:${port}`);
    const url = `${this.#options.scheme ?? 'http'}://${client}`;
    const log = openSync(join(this.#directory, 'log'), 'a', 0o600);
    const args = [
      ['--name', 'test', '--data-dir', join(this.#directory, 'data')],
      ['--listen-client-urls', url, '--advertise-client-urls', url],
      ['--listen-peer-urls', `http://${peer}`, '--initial-advertise-peer-urls', `http://${peer}`],
      ['--initial-cluster', `test=http://${peer}`, '--logger', 'zap', '--log-level', 'warn'],
      this.#options.args ?? [],
    ].flat();
    // A killed test run must not leave it behind: the kernel ends it with us.
    const command = ['--pdeathsig', 'KILL', needTool('TARTAN_ETCD', 'etcd'), ...args];
    const child = spawn('setpriv', command, { stdio: ['ignore', log, log] });
    child.on('error', () => {});
    closeSync(log);
    return child;
  }

  /** Another etcd on our port would pass a health check: our own child must be alive as well. */
  async #healthy(): Promise<void> {
    const end = Date.now() + 20_000;
    for (; Date.now() < end; await delay(50)) {
      if (this.#child.exitCode !== null || this.#child.pid === undefined)
        throw new Error(`etcd ended: ${readFileSync(join(this.#directory, 'log'), 'utf8').slice(-2000)}`);
      if (await this.#answers()) return;
    }
    throw new Error('etcd did not become healthy within 20 s');
  }

  async #answers(): Promise<boolean> {
    try {
      // With TLS only that the port is open: the tests' own client shows the rest.
      if (this.#options.scheme === 'https') return await isOpen(this.port);
      return (await fetch(`${this.endpoint}/health`, { signal: AbortSignal.timeout(1000) })).ok;
    } catch {
      return false;
    }
  }
}

/** Nothing listens there: it is in no range that somebody is given a port from. */
export const deadEndpoint = 'http://127.0.0.1:1';

/**
 * Ports below those that the kernel gives to whoever asks for any, of a range of this worker of vitest, so nobody else
 * of this run gets them meanwhile.
 */
async function freePorts(): Promise<readonly [client: number, peer: number]> {
  const servers: Server[] = [];
  const first = 20_000 + (Number(process.env['VITEST_POOL_ID'] ?? 0) % 10) * 1_000;
  for (let attempt = 0; servers.length < 2; attempt++) {
    const server = createServer();
    try {
      server.listen(first + Math.floor(Math.random() * 1_000), '127.0.0.1');
      await once(server, 'listening');
      servers.push(server);
    } catch (error) {
      if (attempt === 20) throw error;
    }
  }
  const [client, peer] = servers.map(server => (server.address() as AddressInfo).port) as [number, number];
  for (const server of servers) server.close();
  await Promise.all(servers.map(server => once(server, 'close')));
  return [client, peer];
}

async function isOpen(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
