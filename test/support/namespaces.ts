/**
 * The network that a lab stands on, made of named network namespaces. Nothing is added to the machine's own
 * namespace, and the reaper removes everything by name when the maker closes it or ends in any other way.
 *
 *   PREFIXa  eth0 192.0.2.1/24 --.
 *   PREFIXb  eth0 192.0.2.2/24 --+-- br0 192.0.2.253 in PREFIXu (the default route of all)
 *   PREFIXe  eth0 192.0.2.254 ---'
 *   PREFIXac eth0 -- ct0 on br-ct in PREFIXa       a "container" of host a
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ended, root, run } from './tools.js';

/** The user of this machine that is root in a user namespace (user-namespace.sh). */
const innerRoot = 100_000;
const gateway = '192.0.2.253';
let labs = 0;

export class Namespaces {
  readonly prefix: string;
  readonly directory: string;
  readonly #reaper;
  /** What has a user namespace too, by letter: its process. */
  readonly #unprivileged = new Map<string, number>();

  constructor() {
    const count = labs++;
    this.prefix = `tt${process.pid}${count > 0 ? `x${count}` : ''}`;
    this.directory = mkdtempSync(join(tmpdir(), 'tartan-lab-'));
    // A session of its own: Ctrl-C reaches the whole group of the terminal.
    this.#reaper = spawn('bash', [join(root, 'test/support/reaper.sh'), this.prefix, this.directory], {
      stdio: ['pipe', 'ignore', 'inherit'],
      detached: true,
    });
  }

  name(letter: string): string {
    return `${this.prefix}${letter}`;
  }

  /** The command as it runs in the namespace. */
  inside(letter: string, command: readonly string[]): readonly string[] {
    const pid = this.#unprivileged.get(letter);
    if (pid === undefined) return ['ip', 'netns', 'exec', this.name(letter), ...command];
    return ['nsenter', '-t', String(pid), '-U', '-m', '-n', '-S', '0', '-G', '0', ...command];
  }

  async openUnderlay(mtu: number): Promise<void> {
    const switchName = await this.#add('u');
    await run(['ip', '-n', switchName, 'link', 'add', 'br0', 'mtu', String(mtu), 'type', 'bridge']);
    await run(['ip', '-n', switchName, 'address', 'add', `${gateway}/24`, 'dev', 'br0']);
    await run(['ip', '-n', switchName, 'link', 'set', 'br0', 'up']);
    // The setting is inherited by new namespaces: keep the switch out of netfilter.
    const setting = ['sysctl', '-q', '-e', '-w', 'net.bridge.bridge-nf-call-iptables=0'];
    await run(this.inside('u', setting));
  }

  /** A host on the underlay. An unprivileged one is as a container of LXC, and its directory belongs to its root. */
  async openHost(letter: string, address: string, mtu: number, isUnprivileged = false): Promise<void> {
    const name = await (isUnprivileged ? this.#addUnprivileged(letter) : this.#add(letter));
    const peer = ['peer', 'name', 'eth0', 'mtu', String(mtu), 'netns', name];
    const port = `p${letter}`;
    await run(['ip', '-n', this.name('u'), 'link', 'add', port, 'mtu', String(mtu), 'type', 'veth', ...peer]);
    await run(['ip', '-n', this.name('u'), 'link', 'set', port, 'master', 'br0', 'up']);
    await run(['ip', '-n', name, 'address', 'add', `${address}/24`, 'dev', 'eth0']);
    await run(['ip', '-n', name, 'link', 'set', 'eth0', 'up']);
    await run(['ip', '-n', name, 'route', 'add', 'default', 'via', gateway]);
  }

  /** A bridge with one "container" on it; it gets its address by `addressContainer`. */
  async openContainer(letter: string): Promise<void> {
    const host = this.name(letter);
    const container = await this.#add(`${letter}c`);
    await run(['ip', '-n', host, 'link', 'add', 'br-ct', 'type', 'bridge']);
    await run(['ip', '-n', host, 'link', 'set', 'br-ct', 'up']);
    // As everything that runs containers does.
    await run(this.inside(letter, ['sysctl', '-q', '-w', 'net.ipv4.ip_forward=1']));
    await run(['ip', '-n', host, 'link', 'add', 'ct0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', container]);
    await run(['ip', '-n', host, 'link', 'set', 'ct0', 'master', 'br-ct', 'up']);
    await run(['ip', '-n', container, 'link', 'set', 'eth0', 'up']);
  }

  /** What Docker does with `--bip` and `--mtu`. */
  async addressContainer(letter: string, bridge: string, container: string, mtu: number): Promise<void> {
    const host = this.name(letter);
    const inner = this.name(`${letter}c`);
    const [gatewayAddress = ''] = bridge.split('/');
    for (const [name, link] of [
      [host, 'br-ct'],
      [host, 'ct0'],
      [inner, 'eth0'],
    ] as const)
      await run(['ip', '-n', name, 'link', 'set', link, 'mtu', String(mtu)]);
    await run(['ip', '-n', host, 'address', 'flush', 'dev', 'br-ct']);
    await run(['ip', '-n', inner, 'address', 'flush', 'dev', 'eth0']);
    await run(['ip', '-n', host, 'address', 'add', bridge, 'dev', 'br-ct']);
    await run(['ip', '-n', inner, 'address', 'add', container, 'dev', 'eth0']);
    await run(['ip', '-n', inner, 'route', 'replace', 'default', 'via', gatewayAddress]);
  }

  /** Gives the namespace of a process (a container of Docker) the name of the host's container. */
  async adoptContainer(letter: string, pid: number): Promise<void> {
    await run(['ip', 'netns', 'attach', this.name(`${letter}c`), String(pid)]);
  }

  /** Everything stays; returns the command that removes it. */
  keep(): string {
    this.#reaper.stdin.write('keep\n');
    this.#reaper.unref();
    return `bash ${join(root, 'test/support/reaper.sh')} --now ${this.prefix} ${this.directory}`;
  }

  async close(): Promise<void> {
    this.#reaper.stdin.end();
    await ended(this.#reaper);
  }

  async #addUnprivileged(letter: string): Promise<string> {
    const [name, directory] = [this.name(letter), join(this.directory, letter)];
    chmodSync(this.directory, 0o755);
    mkdirSync(directory);
    chownSync(directory, innerRoot, innerRoot);
    const holder = spawn(join(root, 'test/support/user-namespace.sh'), [directory], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [text] = (await once(holder.stdout, 'data')) as [Buffer];
    holder.stdout.destroy();
    holder.unref();
    this.#unprivileged.set(letter, Number(text.toString()));
    await run(['ip', 'netns', 'attach', name, text.toString().trim()]);
    await run(['ip', '-n', name, 'link', 'set', 'lo', 'up']);
    return name;
  }

  async #add(letter: string): Promise<string> {
    const name = this.name(letter);
    await run(['ip', 'netns', 'add', name]);
    await run(['ip', '-n', name, 'link', 'set', 'lo', 'up']);
    return name;
  }
}
