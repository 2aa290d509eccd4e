/**
 * A real Docker engine for one host of a lab, with the options that tartand wrote for it. It lives below a holder
 * process (holder.sh) in the host's network namespace; the reaper ends it with that namespace.
 */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import type { LabHost } from './lab-host.js';
import { attempt, findTool, hasEnded, root, run, startService, until } from './tools.js';

const image = 'box:1';

export class DockerEngine {
  readonly #host: LabHost;
  readonly #directory: string;
  readonly #socket: string;
  #holder = 0;

  constructor(host: LabHost) {
    this.#host = host;
    this.#directory = join(host.spaces.directory, host.letter, 'docker');
    this.#socket = join(this.#directory, 'docker.sock');
  }

  static available(): boolean {
    return ['dockerd', 'docker', 'containerd', 'runc', 'docker-init'].every(name => findTool(name) !== undefined);
  }

  /** The engine with the words of the host's docker.env, and one container. */
  async start(): Promise<void> {
    mkdirSync(this.#directory, { recursive: true });
    await this.#startHolder();
    await this.#startEngine();
    await this.docker('import', await makeImage(this.#directory), image);
    await this.docker('run', '-d', '--name', 'box', '--hostname', this.#host.letter, image, 'sleep', '1000000');
    const inner = Number(await this.docker('inspect', '-f', '{{.State.Pid}}', 'box'));
    await this.#host.spaces.adoptContainer(this.#host.letter, this.#outerPid(inner));
  }

  /** The Docker client against this engine; its trimmed output. */
  async docker(...args: readonly string[]): Promise<string> {
    const environment = { DOCKER_HOST: `unix://${this.#socket}`, DOCKER_CONFIG: this.#directory };
    return (await run(['docker', ...args], { environment })).trim();
  }

  async #startHolder(): Promise<void> {
    const { spaces, letter } = this.#host;
    const name = spaces.name(letter);
    const own = [
      '--mount',
      '--propagation',
      'private',
      '--uts',
      '--ipc',
      '--pid',
      '--fork',
      '--kill-child',
      '--mount-proc',
    ];
    const holder = ['sh', join(root, 'test/support/holder.sh'), this.#directory, name];
    const child = this.#service('holder.log', ['nsenter', `--net=/run/netns/${name}`, 'unshare', ...own, ...holder]);
    await until(`holder of ${name}`, () => {
      if (hasEnded(child)) throw new Error(`the holder ended: ${this.#log('holder.log')}`);
      return existsSync(join(this.#directory, 'ready'));
    });
    this.#holder = childrenOf(child.pid ?? 0)[0] ?? 0;
  }

  async #startEngine(): Promise<void> {
    const { spaces, letter, dockerEnvFile } = this.#host;
    const words = /^DOCKER_NETWORK_OPTIONS="(.*)"$/m.exec(readFileSync(dockerEnvFile, 'utf8'))?.[1] ?? '';
    const options = [
      ['--data-root', join(this.#directory, 'data'), '--exec-root', '/run/docker-exec', '--pidfile', '/run/docker.pid'],
      ['--host', `unix://${this.#socket}`, '--exec-opt', 'native.cgroupdriver=cgroupfs'],
      ['--cgroup-parent', `/${spaces.name(letter)}`],
      words.split(' ').filter(word => word !== ''),
    ].flat();
    const inHolder = ['nsenter', '-t', String(this.#holder), '-m', '-u', '-i', '-n', '-p', '--'];
    const child = this.#service('dockerd.log', [...inHolder, 'dockerd', ...options]);
    await until(
      `dockerd of host ${letter}`,
      async () => {
        if (hasEnded(child)) throw new Error(`dockerd ended: ${this.#log('dockerd.log')}`);
        const environment = { DOCKER_HOST: `unix://${this.#socket}`, DOCKER_CONFIG: this.#directory };
        return (await attempt(['docker', 'version'], { environment })).status === 0;
      },
      30_000,
    );
  }

  #service(log: string, command: readonly string[]): ChildProcess {
    return startService(command, join(this.#directory, log));
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
 * An archive for `docker import`: a static busybox and the names it answers to. Each engine makes its own: they start
 * at the same time.
 */
async function makeImage(directory: string): Promise<string> {
  const archive = join(directory, 'image.tar');
  const tree = join(directory, 'image');
  for (const name of ['bin', 'dev', 'etc', 'proc', 'root', 'sys', 'tmp'])
    mkdirSync(join(tree, name), { recursive: true });
  const busybox = findTool('busybox');
  if (!busybox) throw new Error('no busybox: run test/support/setup.sh');
  copyFileSync(busybox, join(tree, 'bin/busybox'));
  for (const name of ['sh', 'sleep', 'ping', 'ip', 'nc', 'cat', 'ls']) symlinkSync('busybox', join(tree, 'bin', name));
  writeFileSync(join(tree, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\n');
  await run(['tar', '-C', tree, '-cf', archive, '.']);
  return archive;
}
