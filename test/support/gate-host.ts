/**
 * A host under a real systemd on which Docker is enabled and tartan is put through its states, for the tests of Docker's
 * gate: what Docker has after each.
 */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from './lab.js';
import { SystemdHost } from './systemd-host.js';
import { root } from './tools.js';

const dropIn = '/etc/systemd/system/docker.service.d/tartan.conf';
const settings = '/etc/default/tartand';
export const gateFile = '/run/tartan/docker-gate.env';

/** What Docker was started with, and what its gate said. */
export interface DockerSeen {
  /** The flags of tartan's alone. */
  readonly flags: readonly string[];
  readonly said: 'nothing' | 'off' | 'waits';
}

export const off: DockerSeen = { flags: [], said: 'off' };
/** Without a drop-in nobody is there to say so. */
export const asBefore: DockerSeen = { flags: [], said: 'nothing' };

export class GateHost extends SystemdHost {
  readonly #endpoint: string;

  constructor(lab: Lab) {
    super(lab.spaces, 's', 'enabled');
    this.#endpoint = lab.etcd.endpoint;
  }

  static async open(lab: Lab): Promise<GateHost> {
    await lab.spaces.openHost('s', '192.0.2.9', 1500);
    const host = new GateHost(lab);
    await host.boot({
      'docker/daemon.json': daemonJson(),
      // With a journal.
      'systemd/system/service.d/log.conf': '',
    });
    await host.systemctl('enable', '--now', 'docker.socket', 'docker.service');
    return host;
  }

  /** What `tartan join` does for Docker and tartand. */
  async join(): Promise<void> {
    this.write(settings, `TARTAN_ETCD_ENDPOINTS=${this.#endpoint}\nTARTAN_IP_MASQ=true\n`);
    this.writeDropIn();
    await this.systemctl('daemon-reload');
    await this.systemctl('enable', '--now', 'tartand');
  }

  writeDropIn(): void {
    mkdirSync(join(this.path(dropIn), '..'), { recursive: true });
    this.write(dropIn, readFileSync(join(root, 'config/systemd/docker.service.d/tartan.conf'), 'utf8'));
  }

  hasDropIn(): boolean {
    return existsSync(this.path(dropIn));
  }

  async removeDropIn(): Promise<void> {
    await this.run(['rm', dropIn]);
    await this.systemctl('daemon-reload');
  }

  /** tartand fails at each start until `repairSettings`. */
  breakSettings(): void {
    this.write(settings, `TARTAN_LEASE_TTL=never\nTARTAN_ETCD_ENDPOINTS=${this.#endpoint}\n`);
  }

  repairSettings(): void {
    this.write(settings, `TARTAN_ETCD_ENDPOINTS=${this.#endpoint}\nTARTAN_IP_MASQ=true\n`);
  }

  async restartDocker(): Promise<DockerSeen> {
    const since = await this.#cursor();
    await this.systemctl('restart', 'docker');
    return this.#seen(since);
  }

  async rebootAndLook(): Promise<DockerSeen> {
    await this.reboot();
    await this.untilActive('docker');
    return this.#seen();
  }

  /** The flags of a host that is in the overlay. */
  joined(): DockerSeen {
    const [, bridge = ''] = /^FLANNEL_SUBNET=(.*)$/m.exec(this.read('/run/flannel/subnet.env')) ?? [];
    return { flags: [`--bip=${bridge}`, '--ip-masq=false', '--mtu=1464'], said: 'nothing' };
  }

  async bridge(): Promise<string> {
    const text = await this.run(['ip', '-4', '-br', 'address', 'show', 'docker0']);
    return text.trim().split(/\s+/)[2] ?? '';
  }

  async gateSaid(): Promise<DockerSeen['said']> {
    return saidIn(await this.run(['journalctl', '--no-pager', '-o', 'cat', '-u', 'docker']));
  }

  /** Microseconds from the start of the unit to that of dockerd: what the gate takes. */
  async gateTime(): Promise<number> {
    const [from, to] = await Promise.all([
      this.show('docker', 'InactiveExitTimestampMonotonic'),
      this.show('docker', 'ExecMainStartTimestampMonotonic'),
    ]);
    return Number(to) - Number(from);
  }

  async #cursor(): Promise<string> {
    const text = await this.run(['journalctl', '--no-pager', '-n', '0', '--show-cursor']);
    return /^-- cursor: (.*)$/m.exec(text)?.[1] ?? '';
  }

  async #seen(since?: string): Promise<DockerSeen> {
    const after = since === undefined ? [] : [`--after-cursor=${since}`];
    const journal = await this.run(['journalctl', '--no-pager', '-o', 'cat', '-u', 'docker', ...after]);
    const words = this.read(`/proc/${await this.mainPid('docker')}/cmdline`).split('\0');
    return { flags: words.filter(word => /^--(bip|ip-masq|mtu)/.test(word)), said: saidIn(journal) };
  }
}

/** The engine's systemd driver wants D-Bus. */
export function daemonJson(member = ''): string {
  return `{${member}"exec-opts":["native.cgroupdriver=cgroupfs"]}\n`;
}

function saidIn(journal: string): DockerSeen['said'] {
  const isOff = /^tartan: the overlay is off, Docker starts without it/m.test(journal);
  if (/^tartan: Docker waits for tartand/m.test(journal)) return 'waits';
  return isOff ? 'off' : 'nothing';
}
