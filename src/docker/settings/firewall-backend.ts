/**
 * Whether Docker filters by nftables of its own (Docker 29 on): only then it needs, and only then it knows, the options
 * that let packets of the overlay pass. Older engines end at a flag that they do not know.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** `auto`: by daemon.json and by dockerd's flags. */
export type DockerFirewall = 'auto' | 'iptables' | 'nftables';

/** The first whose nftables backend knows an accept mark. */
const firstVersion = 29;
const timeoutMs = 10_000;

/** Answers of the installed dockerd; it is asked again until it is new enough. */
export class FirewallBackend {
  readonly #choice: DockerFirewall;
  readonly #program: string;
  #known = false;

  constructor(choice: DockerFirewall, program = 'dockerd') {
    this.#choice = choice;
    this.#program = program;
  }

  /** @param seen whether nftables stands in Docker's settings; not asked when the choice is made */
  async wantsOptions(seen: () => boolean): Promise<{ readonly wanted: boolean; readonly problem?: string }> {
    if (this.#choice === 'iptables' || (this.#choice === 'auto' && !seen())) return { wanted: false };
    if (this.#known) return { wanted: true };
    const version = await this.#version();
    this.#known = version !== undefined && version >= firstVersion;
    if (this.#known) return { wanted: true };
    const found = version === undefined ? 'the version of dockerd cannot be told' : `dockerd is version ${version}`;
    return {
      wanted: false,
      problem:
        `Docker is to filter by nftables, which needs Docker ${firstVersion}, and ${found}: the options for it are left ` +
        `out; install Docker ${firstVersion}, or start tartand with --docker-firewall=iptables`,
    };
  }

  async #version(): Promise<number | undefined> {
    try {
      const { stdout } = await promisify(execFile)(this.#program, ['--version'], { timeout: timeoutMs });
      const major = /^Docker version (\d+)\./.exec(stdout)?.[1];
      return major === undefined ? undefined : Number(major);
    } catch {
      return undefined;
    }
  }
}
