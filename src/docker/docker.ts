/** The port to what Docker is told: the files that its units, its scripts and the engine itself read. */
import type { Prefix } from '../model/ipv4.js';

export interface DockerSettings {
  readonly network: Prefix;
  readonly subnet: Prefix;
  /** Bytes of the largest inner packet. */
  readonly mtu: number;
  /** Whether tartan masquerades what leaves the overlay; flannel's FLANNEL_IPMASQ. */
  readonly ipMasquerade: boolean;
}

/** What tartand hands over to Docker, how, and what it does itself. */
export interface DockerShare {
  /** Bytes of the largest packet that a container may send. */
  readonly mtu: number;
  /** tartand masquerades what leaves the overlay; Docker never does. */
  readonly masquerade: boolean;
  /** tartand accepts forwarded packets of the overlay. */
  readonly forward: boolean;
  /** Where Docker gets it: flags of `envFile`, which its unit reads, or members of `daemonJsonFile`. */
  readonly config: 'env' | 'daemon-json';
  readonly envFile: string;
  readonly daemonJsonFile: string;
}

export interface DockerWriteResult {
  /** Paths of the files whose content changed. */
  readonly written: readonly string[];
  /** What of somebody else's will keep Docker from taking the settings, one line each. */
  readonly conflicts: readonly string[];
  /** Docker is to filter by nftables: then it does not switch the host's forwarding on, and not start without. */
  readonly needsForwarding: boolean;
}

export interface DockerFiles {
  /** The subnet of an earlier run as `subnet.env` has it, if the file is there and sound. */
  previousSubnet(): Prefix | undefined;
  /**
   * Makes the files be as the settings say; to be called again and again, and then nothing is written.
   * @throws TartanError HOST_REFUSED or CONFIG_INVALID naming the file; an older file stays as it was
   */
  write(settings: DockerSettings): Promise<DockerWriteResult>;
}
