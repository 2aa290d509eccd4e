/**
 * Runs the plugins of config/cni on a host of a lab, one after the other as libcni does (CNI specification 0.4.0): the real
 * ones of Debian, by the list as it is shipped, which finds the host's subnet.env and a /var/lib/cni of the host's own.
 */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LabHost } from './lab-host.js';
import { root, run } from './tools.js';

const plugins = join(root, '.cache/engines/cni/usr/lib/cni');
const list = join(root, 'config/cni/10-tartan.conflist');

/** Whether set-up could get them. */
export const hasCni = existsSync(join(plugins, 'flannel'));

interface PluginList {
  readonly cniVersion: string;
  readonly name: string;
  readonly plugins: readonly { readonly type: string; readonly capabilities?: object }[];
}

/** Directories of the host in the places of the list, in a mount namespace of the command's own. */
const placed = `
set -e
mkdir -p "$1/cni" "$1/outer-run"
mount --rbind /run "$1/outer-run"
mount -t tmpfs none /run
mkdir /run/netns /run/flannel
mount --rbind "$1/outer-run/netns" /run/netns
cp "$2" /run/flannel/subnet.env
mount -t tmpfs none /var/lib
mkdir /var/lib/cni
mount --bind "$1/cni" /var/lib/cni
shift 2
exec "$@"
`;

/** A network namespace of the host that the plugins make a pod of. */
export class Pod {
  readonly #host: LabHost;
  readonly letter: string;
  #result: unknown;

  private constructor(host: LabHost, letter: string) {
    this.#host = host;
    this.letter = letter;
  }

  /** @param letter of the pod's namespace among those of the lab */
  static async open(host: LabHost, letter: string): Promise<Pod> {
    await run(['ip', 'netns', 'add', host.spaces.name(letter)]);
    return new Pod(host, letter);
  }

  /** @returns the addresses that the plugins gave it, as `10.5.1.2/24` */
  async add(): Promise<readonly string[]> {
    const { plugins: chain } = readList();
    for (const { type } of chain) this.#result = JSON.parse(await this.#call('ADD', type));
    const { ips } = this.#result as { readonly ips: readonly { readonly address: string }[] };
    return ips.map(({ address }) => address);
  }

  async remove(): Promise<void> {
    for (const { type } of [...readList().plugins].reverse()) await this.#call('DEL', type);
  }

  async #call(command: 'ADD' | 'DEL', type: string): Promise<string> {
    const { cniVersion, name, plugins: chain } = readList();
    const config = { cniVersion, name, ...chain.find(one => one.type === type), prevResult: this.#result };
    const { spaces, letter, subnetFile } = this.#host;
    const environment = {
      CNI_COMMAND: command,
      CNI_CONTAINERID: spaces.name(this.letter),
      CNI_NETNS: `/run/netns/${spaces.name(this.letter)}`,
      CNI_IFNAME: 'eth0',
      CNI_PATH: plugins,
    };
    const own = join(spaces.directory, letter, 'pods');
    mkdirSync(own, { recursive: true });
    const inside = ['unshare', '--mount', 'sh', '-c', placed, 'sh', own, subnetFile, join(plugins, type)];
    return run(this.#host.inside(inside), { environment, input: JSON.stringify(config) });
  }
}

function readList(): PluginList {
  return JSON.parse(readFileSync(list, 'utf8')) as PluginList;
}
