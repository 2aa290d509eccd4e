/**
 * A real Docker engine for one host of a lab, with the options that tartand wrote for it: the machine's own, or one of
 * those that engines.sh unpacked. It lives below a holder process (holder.sh) in the host's network namespace; the
 * reaper ends it with that namespace.
 */
import { execFileSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LabHost } from './lab-host.js';
import { attempt, ended, findTool, flows, hasEnded, root, run, startService, toolEnvironment, until } from './tools.js';

/** By what their `dockerd --version` begins with. */
export type EngineVersion = '20' | '26' | '28';

export interface EngineOptions {
  /** Default: the machine's own, whichever it is. */
  readonly version?: EngineVersion;
  /** What `iptables` is on the host, for its tartand too; default: as on the machine. */
  readonly iptables?: 'nft' | 'legacy';
  /** What dockerd is started with, made of the words of docker.env; default: these. */
  readonly words?: (ofTartand: readonly string[]) => readonly string[];
}

/** For tests that run with one engine at a time: TARTAN_DOCKER_ENGINE=28 asks for another than the machine's own. */
export function askedEngine(): EngineOptions {
  const version = (['20', '26', '28'] as const).find(one => one === process.env['TARTAN_DOCKER_ENGINE']);
  return version === undefined ? {} : { version };
}

export interface ContainerOptions {
  /** `8080:80`, `8080:80/udp` */
  readonly publish?: readonly string[];
  readonly network?: string;
  readonly command?: readonly string[];
}

/** Docker Compose, as a plugin of the client; undefined where set-up could not get it. */
export const composePlugin = ['/usr/libexec', '/usr/lib', '/usr/local/lib', '/usr/local/libexec']
  .flatMap(folder => [join(root, '.cache/engines/compose', folder), folder])
  .map(folder => join(folder, 'docker/cli-plugins/docker-compose'))
  .find(path => existsSync(path));

const image = 'box:1';
const sleeping = ['sleep', '1000000'];

export class DockerEngine {
  readonly options: EngineOptions;
  readonly #host: LabHost;
  readonly #directory: string;
  readonly #socket: string;
  #holder = 0;
  #service: ChildProcess | undefined;

  constructor(host: LabHost, options: EngineOptions = {}) {
    this.options = options;
    this.#host = host;
    this.#directory = join(host.spaces.directory, host.letter, 'docker');
    this.#socket = join(this.#directory, 'docker.sock');
    mkdirSync(this.#directory, { recursive: true });
  }

  /** As DOCKER_HOST has it. */
  get url(): string {
    return `unix://${this.#socket}`;
  }

  /** Whether such an engine can run here, and all it needs. */
  static available(version?: EngineVersion): boolean {
    const others = ['docker', 'runc', 'docker-init'].every(name => findTool(name) !== undefined);
    return others && programsOf(version) !== undefined;
  }

  /** The engine with the words of the host's docker.env, and the image; no container yet. */
  async start(): Promise<void> {
    await this.#startHolder();
    await this.startDaemon();
    await this.docker('import', await makeImage(this.#directory), image);
  }

  async startDaemon(): Promise<void> {
    const { spaces, letter, dockerEnvFile } = this.#host;
    const text = /^DOCKER_NETWORK_OPTIONS="(.*)"$/m.exec(readFileSync(dockerEnvFile, 'utf8'))?.[1] ?? '';
    const words = text.split(' ').filter(word => word !== '');
    const options = [
      ['--data-root', join(this.#directory, 'data'), '--exec-root', '/run/docker-exec', '--pidfile', '/run/docker.pid'],
      ['--host', this.url, '--exec-opt', 'native.cgroupdriver=cgroupfs'],
      ['--cgroup-parent', `/${spaces.name(letter)}`],
      this.options.words?.(words) ?? words,
    ].flat();
    const inHolder = ['nsenter', '-t', String(this.#holder), '-m', '-u', '-i', '-n', '-p', '--'];
    const child = this.#start('dockerd.log', [...inHolder, 'dockerd', ...options], { PATH: this.path });
    this.#service = child;
    await until(
      `dockerd of host ${letter}`,
      async () => {
        if (hasEnded(child)) throw new Error(`dockerd ended: ${this.#log('dockerd.log')}`);
        return (await attempt(['docker', 'version'], { environment: this.#clientEnvironment })).status === 0;
      },
      30_000,
    );
  }

  /** PATH with the programs of this engine first, for who asks which dockerd is installed. */
  get path(): string {
    const programs = programsOf(this.options.version);
    if (programs === undefined) throw new Error(`no Docker ${this.options.version ?? ''}: run test/support/setup.sh`);
    return `${programs}/usr/sbin:${programs}/usr/bin:${toolEnvironment['PATH']}`;
  }

  /** SIGTERM, as a service manager does it, and its end; the containers end too. */
  async stopDaemon(): Promise<void> {
    process.kill(this.daemonPid, 'SIGTERM');
    if (this.#service) await ended(this.#service);
  }

  /** nsenter(1) forks to enter a pid namespace: dockerd is its child. */
  get daemonPid(): number {
    const pid = childrenOf(this.#service?.pid ?? 0)[0];
    if (!pid) throw new Error(`host ${this.#host.letter} runs no dockerd`);
    return pid;
  }

  async runContainer(name: string, o: ContainerOptions = {}): Promise<void> {
    const published = (o.publish ?? []).flatMap(port => ['-p', port]);
    const network = o.network === undefined ? [] : ['--network', o.network];
    const options = ['-d', '--name', name, '--hostname', `${this.#host.letter}-${name}`, ...published, ...network];
    await this.docker('run', ...options, image, ...(o.command ?? sleeping));
  }

  /** The Docker client against this engine; its trimmed output. */
  async docker(...args: readonly string[]): Promise<string> {
    return (await run(['docker', ...args], { environment: this.#clientEnvironment })).trim();
  }

  /** Of the one network that it is on. */
  addressOf(container: string): Promise<string> {
    return this.docker('inspect', '-f', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}', container);
  }

  /** As this process sees it. */
  async pidOf(container: string): Promise<number> {
    return this.#outerPid(Number(await this.docker('inspect', '-f', '{{.State.Pid}}', container)));
  }

  get #clientEnvironment(): Readonly<Record<string, string>> {
    return { DOCKER_HOST: this.url, DOCKER_CONFIG: this.#directory };
  }

  async #startHolder(): Promise<void> {
    const { spaces, letter } = this.#host;
    const name = spaces.name(letter);
    const spacesOfIts = ['--mount', '--propagation', 'private', '--uts', '--ipc', '--pid'];
    const own = [...spacesOfIts, '--fork', '--kill-child', '--mount-proc'];
    const last = this.#host.withIptables(['docker-init', '--', 'sleep', 'infinity']);
    const holder = ['sh', join(root, 'test/support/holder.sh'), this.#directory, name, ...last];
    const child = this.#start('holder.log', ['nsenter', `--net=/run/netns/${name}`, 'unshare', ...own, ...holder]);
    await until(`holder of ${name}`, () => {
      if (hasEnded(child)) throw new Error(`the holder ended: ${this.#log('holder.log')}`);
      return existsSync(join(this.#directory, 'ready'));
    });
    this.#holder = childrenOf(child.pid ?? 0)[0] ?? 0;
  }

  #start(log: string, command: readonly string[], environment = {}): ChildProcess {
    return startService(command, join(this.#directory, log), environment);
  }

  #log(name: string): string {
    return readFileSync(join(this.#directory, name), 'utf8').slice(-2000);
  }

  /** A pid of the holder's pid namespace as this process sees it: NSpid of proc(5) lists both. */
  #outerPid(inner: number): number {
    const pids = readdirSync('/proc').filter(name => /^\d+$/.test(name));
    const found = pids.find(pid => {
      const status = statusOf(pid);
      const numbers = /^NSpid:\s+(.*)$/m.exec(status)?.[1]?.split('\t') ?? [];
      return numbers[1] === String(inner) && numbers.length === 3 && this.#isBelowHolder(pid);
    });
    if (!found) throw new Error(`no process for pid ${inner} of the engine of host ${this.#host.letter}`);
    return Number(found);
  }

  #isBelowHolder(pid: string): boolean {
    for (let at = pid; at !== '0' && at !== ''; at = /^PPid:\s+(\d+)$/m.exec(statusOf(at))?.[1] ?? '')
      if (Number(at) === this.#holder) return true;
    return false;
  }
}

/**
 * What the directories of the engine's programs lie in: below .cache/engines, or where the machine has its own, if that
 * is of this version and runs here.
 */
function programsOf(version: EngineVersion | undefined): string | undefined {
  const unpacked = join(root, '.cache/engines', version ?? '');
  const own = ['dockerd', 'containerd'].every(name => findTool(name) !== undefined) ? '' : undefined;
  if (version === undefined) return own;
  const isIt = (dockerd: string): boolean => versionOf(dockerd).startsWith(`${version}.`);
  if (isIt(join(unpacked, 'usr/sbin/dockerd'))) return unpacked;
  return own !== undefined && isIt(findTool('dockerd') ?? '') ? own : undefined;
}

/** Empty when it does not run. */
function versionOf(dockerd: string): string {
  try {
    const text = execFileSync(dockerd, ['--version'], { env: toolEnvironment, encoding: 'utf8', stdio: 'pipe' });
    return /version ([0-9.]+)/.exec(text)?.[1] ?? '';
  } catch {
    return '';
  }
}

function statusOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8');
  } catch {
    return '';
  }
}

function childrenOf(pid: number): readonly number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number);
}

/**
 * An archive for `docker import`: a static busybox with the names it answers to, and flows (flows.c). Each engine makes
 * its own: they start at the same time.
 */
export async function makeImage(directory: string): Promise<string> {
  const archive = join(directory, 'image.tar');
  const tree = join(directory, 'image');
  for (const name of ['bin', 'dev', 'etc', 'proc', 'root', 'sys', 'tmp'])
    mkdirSync(join(tree, name), { recursive: true });
  const busybox = findTool('busybox');
  if (!busybox) throw new Error('no busybox: run test/support/setup.sh');
  copyFileSync(busybox, join(tree, 'bin/busybox'));
  copyFileSync(flows, join(tree, 'bin/flows'));
  for (const name of ['sh', 'sleep', 'ping', 'ip', 'nc', 'cat', 'ls']) symlinkSync('busybox', join(tree, 'bin', name));
  writeFileSync(join(tree, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\n');
  await run(['tar', '-C', tree, '-cf', archive, '.']);
  return archive;
}
