/**
 * A host on the root tree of a distribution (trees.sh) with its systemd, its apt and its Docker: what an operator does
 * with it, and what it is made of before and after that.
 */
import { copyFileSync, mkdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import { makeImage } from './docker-engine.js';
import type { Lab } from './lab.js';
import { SystemdHost } from './systemd-host.js';
import { attempt, start, until, type Outcome, type Running } from './tools.js';

export const tree = process.env['TARTAN_ROOT_TREE'] ?? '';
/** Of this tree, and of another build with a higher version. */
export const packages = {
  ours: process.env['TARTAN_DEB'] ?? '',
  next: process.env['TARTAN_NEXT_DEB'] ?? '',
  tarball: process.env['TARTAN_TARBALL'] ?? '',
} as const;

/** What an installation may change: names, kinds, owners and modes of all files, and the texts of the settings. */
export interface HostMade {
  readonly files: readonly string[];
  readonly settings: readonly string[];
  readonly units: readonly string[];
  readonly links: readonly string[];
  readonly routes: readonly string[];
  readonly rules: readonly string[];
  readonly accounts: readonly string[];
}

/** docker0 keeps the address that it was last given (fault U8). */
function withoutBridge(line: string): string {
  return line.replace(/(172\.17\.0|10\.5\.\d+)\.0\/(16|24)/g, 'BRIDGE').replace(/src \d\S+/, '');
}

/** What is there more and less, by line. */
export function difference(before: HostMade, after: HostMade): readonly string[] {
  return (Object.keys(before) as (keyof HostMade)[]).flatMap(part => [
    ...before[part].filter(line => !after[part].includes(line)).map(line => `- ${part} ${line}`),
    ...after[part].filter(line => !before[part].includes(line)).map(line => `+ ${part} ${line}`),
  ]);
}

/** Written to by everything that runs and by apt itself, or made at boot. */
const passing =
  /^\/(proc|sys|dev|run|tmp|root)(\/|$)|^\/var\/(log|tmp|cache|spool)(\/|$)|^\/var\/lib\/(docker|containerd|apt|dpkg|systemd|ucf|needrestart)(\/|$)|^\/etc\/(ld\.so\.cache|passwd|shadow|group|gshadow|\.pwd\.lock|resolv\.conf)|-$/;

const box = 'box';

export class TreeHost extends SystemdHost {
  readonly address: string;
  readonly #lab: Lab;
  readonly #name: string;
  readonly #folder: string;

  constructor(lab: Lab, letter: string, address: string) {
    super(lab.spaces, letter, 'nothing', tree);
    this.address = address;
    this.#lab = lab;
    this.#name = letter;
    this.#folder = join(lab.spaces.directory, letter);
  }

  static async open(lab: Lab, letter: string, address: string): Promise<TreeHost> {
    await lab.spaces.openHost(letter, address, 1500);
    const host = new TreeHost(lab, letter, address);
    await host.boot({});
    await host.attempt(['systemctl', 'is-system-running', '--wait']);
    await host.untilActive('docker');
    mkdirSync(join(host.#folder, 'docker'), { recursive: true });
    copyFileSync(await makeImage(join(host.#folder, 'docker')), host.path('/root/image.tar'));
    await host.run(['docker', 'import', '/root/image.tar', 'box:1']);
    return host;
  }

  /** A file of this machine, as an operator copies it there. @returns its path on the host */
  bring(file: string): string {
    const there = `/root/${basename(file)}`;
    copyFileSync(file, this.path(there));
    return there;
  }

  /** `apt install`, that may ask nothing. */
  async install(deb: string, ...options: readonly string[]): Promise<Outcome> {
    const file = this.bring(deb);
    return this.attempt(['apt', 'install', '--yes', ...options, file], { timeoutMs: 120_000 });
  }

  /** The one container of this host, which Docker starts again whenever it starts. */
  async startContainer(): Promise<void> {
    await this.run(['docker', 'run', '-d', '--name', box, '--restart', 'always', 'box:1', 'sleep', '1000000']);
  }

  async containerAddress(): Promise<string> {
    const form = '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}';
    return (await this.run(['docker', 'inspect', '-f', form, box])).trim();
  }

  /** Asks once from the container, for a second. */
  async pings(address: string): Promise<boolean> {
    const { status } = await this.attempt(['docker', 'exec', box, 'ping', '-c', '1', '-W', '1', address]);
    return status === 0;
  }

  /** Numbered questions of the container, five a second, until `stop`. */
  startPings(address: string): Pings {
    return new Pings(this.inside(['docker', 'exec', box, 'ping', '-i', '0.2', '-W', '1', address]));
  }

  /** The namespace of the container gets the name by which flows find it. */
  async nameContainer(): Promise<void> {
    await attempt(['ip', 'netns', 'del', `${this.#lab.spaces.name(this.#name)}c`]);
    await this.adoptContainer(Number(await this.run(['docker', 'inspect', '-f', '{{.State.Pid}}', box])));
  }

  async untilRunning(): Promise<void> {
    await until(
      'the container runs',
      async () => (await this.attempt(['docker', 'exec', box, 'ls'])).status === 0,
      60_000,
    );
  }

  async made(): Promise<HostMade> {
    const lines = async (...command: readonly string[]): Promise<readonly string[]> =>
      (await this.run(command))
        .split('\n')
        .map(line => line.trim())
        .filter(line => line !== '');
    const form = '%p %y %m %u %g %l\n';
    const found = await lines('find', '/', '-xdev', '-printf', form);
    const settings = await lines('find', '/etc', '-xdev', '-type', 'f', '-exec', 'md5sum', '{}', '+');
    const pathOf = (line: string): string => line.replace(/^[0-9a-f]{32}\s+/, '').split(' ')[0] ?? '';
    return {
      files: found.filter(line => !passing.test(pathOf(line))).sort(),
      settings: settings.filter(line => !passing.test(pathOf(line))).sort(),
      units: await lines('systemctl', 'list-unit-files', '--no-legend'),
      links: (await lines('ip', '-br', 'link'))
        .map(line => line.split(/[@ ]/)[0] ?? '')
        .filter(name => !name.startsWith('veth')),
      routes: (await lines('ip', '-4', 'route', 'show', 'table', 'all', 'type', 'unicast')).map(withoutBridge),
      rules: (await lines('iptables-save'))
        // Docker 28 and later leaves a table without rules.
        .filter(line => !/^[#*]/.test(line))
        .map(line => withoutBridge(line.replace(/\[\d+:\d+\]/, ''))),
      accounts: await lines('cut', '-d:', '-f1', '/etc/passwd'),
    };
  }
}

/** What became of numbered questions, five a second. */
export class Pings {
  readonly #child: Running;
  readonly #answered: number[] = [];

  constructor(command: readonly string[]) {
    this.#child = start(command);
    createInterface(this.#child.stdout).on('line', line => {
      const number = /seq=(\d+)/.exec(line)?.[1];
      if (number !== undefined) this.#answered.push(Number(number));
    });
  }

  /** Answers that have come so far. */
  get answers(): number {
    return this.#answered.length;
  }

  /** @returns the seconds of the longest silence between two answers, and how many questions had none */
  stop(): { readonly silence: number; readonly lost: number } {
    this.#child.kill('SIGTERM');
    const steps = this.#answered.map((number, index) => number - (this.#answered[index - 1] ?? number));
    return { silence: Math.max(0, ...steps) / 5, lost: steps.reduce((sum, step) => sum + Math.max(0, step - 1), 0) };
  }
}
