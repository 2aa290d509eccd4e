/** The port to Docker's settings: the files that its units, its scripts and the engine itself read. */
import type { Prefix } from '../model/ip.js';

export interface DockerSettings {
  readonly network: Prefix;
  readonly subnet: Prefix;
  /** Bytes of the largest inner packet. */
  readonly mtu: number;
  /** tartan masquerades what leaves the overlay; flannel calls it FLANNEL_IPMASQ. */
  readonly ipMasquerade: boolean;
}

/** What tartand passes to Docker, in which file, and what it does itself. */
export interface DockerShare {
  /** Bytes of the largest packet that a container may send. */
  readonly mtu: number;
  /** tartand masquerades what leaves the overlay; Docker never does. */
  readonly masquerade: boolean;
  /** tartand accepts forwarded packets of the overlay. */
  readonly forward: boolean;
  /** Where Docker reads its settings: flags of `envFile`, which its unit reads, or members of `daemonJsonFile`. */
  readonly config: 'env' | 'daemon-json';
  readonly envFile: string;
  readonly daemonJsonFile: string;
}

export interface DockerWriteResult {
  /** Paths of the files whose content changed. */
  readonly written: readonly string[];
  /** Settings of others that keep Docker from taking ours, one line each. */
  readonly conflicts: readonly string[];
  /** Docker filters by nftables: then it does not switch the host's forwarding on, and does not start without it. */
  readonly needsForwarding: boolean;
}

export interface DockerFiles {
  /** Returns the subnet of an earlier run from `subnet.env`, if the file exists and is sound. */
  previousSubnet(): Prefix | undefined;
  /**
   * Makes the files equal to the settings. A file that is equal already is not written.
   * @throws TartanError HOST_REFUSED or CONFIG_INVALID naming the file; an older file stays as it was
   */
  write(settings: DockerSettings): Promise<DockerWriteResult>;
  /** Whether one of these files, or Docker's own, is another one than at the end of the last `write`. It only looks. */
  isChangedByOthers(): boolean;
}
